# The collector: an HTTP API that hands POST /ingest to a function, which keeps clicks in its log or in Kafka.

locals {
  # One for each copy of a record that a topic keeps, each in another zone.
  zones = 3

  broker = merge(
    var.kafka == null ? {} : merge(var.kafka.settings, { KAFKA_BOOTSTRAP_SERVERS = var.kafka.bootstrap_servers }),
    var.msk == null ? {} : tomap({
      KAFKA_BOOTSTRAP_SERVERS = one(aws_msk_cluster.clicks[*].bootstrap_brokers_sasl_iam)
      KAFKA_SECURITY_PROTOCOL = "SASL_SSL"
      KAFKA_SASL_MECHANISM    = "AWS_MSK_IAM"
    }),
  )

  network = var.msk == null ? var.network : {
    subnet_ids         = aws_subnet.private[*].id
    security_group_ids = aws_security_group.clicks[*].id
  }
}

resource "aws_cloudwatch_log_group" "ingest" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_iam_role" "ingest" {
  name = var.name

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "write_own_log" {
  name = "write-own-log"
  role = aws_iam_role.ingest.id

  # No CreateLogGroup: the group above exists before the function, with its retention.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.ingest.arn}:*"
    }]
  })
}

resource "aws_lambda_function" "ingest" {
  function_name = var.name
  description   = "Takes clicks over HTTP and keeps them"
  role          = aws_iam_role.ingest.arn

  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  handler          = "lambda_function.lambda_handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]

  memory_size                    = var.memory_mb
  timeout                        = var.timeout_s
  reserved_concurrent_executions = var.reserved_concurrency

  environment {
    variables = merge(local.broker, {
      CLICK_SINK          = var.msk == null && var.kafka == null ? "log" : "kafka"
      DELIVERY_TIMEOUT_MS = tostring((var.timeout_s - 5) * 1000)
    })
  }

  dynamic "vpc_config" {
    for_each = local.network == null ? [] : [local.network]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  # Without the group, the first request would make one that keeps lines forever.
  depends_on = [
    aws_cloudwatch_log_group.ingest,
    aws_iam_role_policy.write_own_log,
    aws_iam_role_policy_attachment.network_interfaces,
  ]
}

resource "aws_apigatewayv2_api" "ingest" {
  name          = var.name
  protocol_type = "HTTP"

  # The API answers OPTIONS itself, and drops what the function says about origins.
  cors_configuration {
    allow_origins = var.allowed_origins
    allow_methods = ["POST"]
    allow_headers = ["content-type"]
    max_age       = 3600
  }
}

resource "aws_apigatewayv2_integration" "ingest" {
  api_id                 = aws_apigatewayv2_api.ingest.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.ingest.invoke_arn
  payload_format_version = "2.0"
}

resource "aws_apigatewayv2_route" "ingest" {
  api_id    = aws_apigatewayv2_api.ingest.id
  route_key = "ANY /ingest"
  target    = "integrations/${aws_apigatewayv2_integration.ingest.id}"
}

resource "aws_apigatewayv2_stage" "default" {
  api_id      = aws_apigatewayv2_api.ingest.id
  name        = "$default"
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit  = var.throttle_rate_per_s
    throttling_burst_limit = var.throttle_burst
  }
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.ingest.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.ingest.execution_arn}/*/*/ingest"
}

# In a network, the function needs an interface there. AWS's own policy, because these calls know no single resource.
resource "aws_iam_role_policy_attachment" "network_interfaces" {
  count = local.network == null ? 0 : 1

  role       = aws_iam_role.ingest.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaENIManagementAccess"
}
