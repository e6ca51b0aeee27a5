output "ingest_url" {
  description = "Address for the blog's secret INGEST_API_GATEWAY_URL"
  value       = "${aws_apigatewayv2_api.ingest.api_endpoint}/ingest"
}

output "log_group" {
  description = "Where the function's lines are, and its clicks while there is no broker"
  value       = aws_cloudwatch_log_group.ingest.name
}

output "bootstrap_servers" {
  description = "The MSK cluster's addresses, reachable from its network only; null without one"
  value       = one(aws_msk_cluster.clicks[*].bootstrap_brokers_sasl_iam)
}
