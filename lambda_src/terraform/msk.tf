# Only with var.msk: a Kafka cluster in a network of its own, with no way in or out but the function.

data "aws_availability_zones" "here" {
  count = var.msk == null ? 0 : 1

  state = "available"

  # Not the local zones an account may have opted into: MSK is not there.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

resource "aws_vpc" "clicks" {
  count = var.msk == null ? 0 : 1

  cidr_block           = "10.42.0.0/24"
  enable_dns_support   = true
  enable_dns_hostnames = true
}

resource "aws_subnet" "private" {
  count = var.msk == null ? 0 : local.zones

  vpc_id            = aws_vpc.clicks[0].id
  cidr_block        = cidrsubnet(aws_vpc.clicks[0].cidr_block, 2, count.index)
  availability_zone = data.aws_availability_zones.here[0].names[count.index]
}

resource "aws_security_group" "clicks" {
  count = var.msk == null ? 0 : 1

  name        = var.name
  description = "The function and the brokers, with one another"
  vpc_id      = aws_vpc.clicks[0].id
}

resource "aws_vpc_security_group_ingress_rule" "among_themselves" {
  count = var.msk == null ? 0 : 1

  security_group_id            = aws_security_group.clicks[0].id
  referenced_security_group_id = aws_security_group.clicks[0].id
  ip_protocol                  = "-1"
  description                  = "From the function and the other brokers"
}

resource "aws_vpc_security_group_egress_rule" "among_themselves" {
  count = var.msk == null ? 0 : 1

  security_group_id            = aws_security_group.clicks[0].id
  referenced_security_group_id = aws_security_group.clicks[0].id
  ip_protocol                  = "-1"
  description                  = "To the brokers, and nowhere else"
}

resource "aws_msk_configuration" "clicks" {
  count = var.msk == null ? 0 : 1

  name           = var.name
  kafka_versions = [var.msk.kafka_version]

  # Two copies before a click is acknowledged. Kept for ever, as the course's topic is: late clicks carry old times.
  server_properties = <<-EOT
    min.insync.replicas=2
    log.retention.ms=-1
  EOT
}

resource "aws_msk_cluster" "clicks" {
  count = var.msk == null ? 0 : 1

  cluster_name           = var.name
  kafka_version          = var.msk.kafka_version
  number_of_broker_nodes = local.zones

  broker_node_group_info {
    instance_type   = var.msk.instance_type
    client_subnets  = aws_subnet.private[*].id
    security_groups = aws_security_group.clicks[*].id

    storage_info {
      ebs_storage_info {
        volume_size = var.msk.storage_gib
      }
    }
  }

  client_authentication {
    sasl {
      iam = true
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.clicks[0].arn
    revision = aws_msk_configuration.clicks[0].latest_revision
  }

  encryption_info {
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }
}

resource "aws_msk_topic" "topics" {
  for_each = var.msk == null ? {} : { clickstream = 3, clickstream-rejected = 1 }

  cluster_arn        = aws_msk_cluster.clicks[0].arn
  name               = each.key
  partition_count    = each.value
  replication_factor = local.zones
}

resource "aws_iam_role_policy" "write_clicks" {
  count = var.msk == null ? 0 : 1

  name = "write-clicks"
  role = aws_iam_role.ingest.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"]
        Resource = aws_msk_cluster.clicks[0].arn
      },
      {
        Effect   = "Allow"
        Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:WriteData"]
        Resource = [for topic in aws_msk_topic.topics : "${replace(aws_msk_cluster.clicks[0].arn, ":cluster/", ":topic/")}/${topic.name}"]
      },
    ]
  })
}
