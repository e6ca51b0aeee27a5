variable "region" {
  description = "AWS region; near the readers, because each click waits for it"
  type        = string
  default     = "ap-northeast-2"
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Write a region's code, such as ap-northeast-2."
  }
}

variable "name" {
  description = "Name of the function, its role, its API, and the last part of its log group"
  type        = string
  default     = "clickstream-ingest"
  validation {
    condition     = can(regex("^[a-zA-Z0-9-]{1,40}$", var.name))
    error_message = "Use 1 to 40 letters, digits and hyphens."
  }
}

variable "allowed_origins" {
  description = "Blogs that may send clicks: scheme and host, no path"
  type        = list(string)
  validation {
    condition     = length(var.allowed_origins) > 0 && alltrue([for origin in var.allowed_origins : can(regex("^https://[a-z0-9.-]+(:[0-9]+)?$", origin))])
    error_message = "Browsers compare the whole string: write https://example.github.io, without a slash at the end."
  }
}

variable "package" {
  description = "The zip that python -m clicklab package builds"
  type        = string
  default     = "../../build/clickstream-ingest.zip"
  validation {
    condition     = endswith(var.package, ".zip")
    error_message = "Build the zip first: python -m clicklab package."
  }
}

variable "memory_mb" {
  description = "Memory of the function, MB; its share of a processor grows with it"
  type        = number
  default     = 256
  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240
    error_message = "AWS takes 128 to 10240 MB."
  }
}

variable "timeout_s" {
  description = "Longest time for one request, s; the handler says 503 five seconds before, so that the browser keeps its clicks"
  type        = number
  default     = 15
  validation {
    condition     = var.timeout_s >= 8 && var.timeout_s <= 29
    error_message = "Choose 8 to 29 s: the API gives up after 30."
  }
}

variable "reserved_concurrency" {
  description = "Most requests at once, a ceiling for the bill; -1 for none, which a new account with a limit of 10 needs"
  type        = number
  default     = 10
  validation {
    condition     = var.reserved_concurrency == -1 || var.reserved_concurrency >= 1
    error_message = "Choose 1 or more, or -1 for no ceiling: 0 stops the collector."
  }
}

variable "throttle_rate_per_s" {
  description = "Requests a second that the API lets through on average; it answers 429 above, and the browser keeps its clicks"
  type        = number
  default     = 50
  validation {
    condition     = var.throttle_rate_per_s >= 1
    error_message = "Choose 1 or more: 0 stops the collector."
  }
}

variable "throttle_burst" {
  description = "Requests that may come at one moment"
  type        = number
  default     = 100
  validation {
    condition     = var.throttle_burst >= 1
    error_message = "Choose 1 or more: 0 stops the collector."
  }
}

variable "log_retention_days" {
  description = "Days until CloudWatch deletes a line; with no broker, also the days a click is kept"
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "CloudWatch takes certain numbers of days only. Up to two years they are 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 and 731."
  }
}

variable "kafka" {
  description = "A broker you have: its addresses, and the handler's KAFKA_ variables that say how to reach it; null keeps clicks in the log"
  type = object({
    bootstrap_servers = string
    settings          = optional(map(string), {})
  })
  default   = null
  sensitive = true
  validation {
    condition     = var.kafka == null || var.msk == null
    error_message = "Choose one broker: kafka is one you have, msk makes one."
  }
}

variable "network" {
  description = "Where the function has to be to reach that broker: subnets and security groups you have; null for a broker with a public address"
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
  validation {
    condition     = var.network == null || var.msk == null
    error_message = "With msk the network is made too: leave network out."
  }
}

variable "msk" {
  description = "Make an MSK cluster in a network of its own: it costs by the hour, also when nobody clicks; null makes none"
  type = object({
    kafka_version = optional(string, "3.9.x")
    instance_type = optional(string, "kafka.t3.small")
    storage_gib   = optional(number, 10)
  })
  default = null
  validation {
    condition     = var.msk == null || try(startswith(var.msk.instance_type, "kafka.") && var.msk.storage_gib >= 1, false)
    error_message = "instance_type begins with kafka., and storage_gib is 1 or more."
  }
}
