# A function with the broker as a layer, and what Vault must know of it. `make lambda-layer` builds the layer.

terraform {
  required_version = ">= 1.6"
  required_providers {
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.4"
    }
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.0"
    }
  }
}

variable "vault_address" {
  type        = string
  description = "Where Vault is, as the function reaches it"
}

variable "subnet_ids" {
  type        = list(string)
  description = "Subnets from which Vault can be reached"
}

variable "security_group_ids" {
  type        = list(string)
  description = "Security groups that let the function out to Vault"
}

# --- AWS -----------------------------------------------------------------------

resource "aws_lambda_layer_version" "tenure" {
  layer_name               = "tenure-arm64"
  filename                 = "${path.module}/../../../target/lambda/tenure-arm64.zip"
  source_code_hash         = filebase64sha256("${path.module}/../../../target/lambda/tenure-arm64.zip")
  compatible_architectures = ["arm64"]
  license_info             = "Apache-2.0"
}

# The login, a signed sts:GetCallerIdentity, needs no permission.
resource "aws_iam_role" "orders" {
  name = "orders-function"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "orders" {
  role       = aws_iam_role.orders.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

data "archive_file" "orders" {
  type        = "zip"
  source_dir  = "${path.module}/../function"
  output_path = "${path.module}/orders.zip"
}

resource "aws_lambda_function" "orders" {
  function_name    = "orders"
  filename         = data.archive_file.orders.output_path
  source_code_hash = data.archive_file.orders.output_base64sha256
  role             = aws_iam_role.orders.arn
  handler          = "app.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  timeout          = 30
  memory_size      = 256
  layers           = [aws_lambda_layer_version.tenure.arn]

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = var.security_group_ids
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO"
  }

  environment {
    variables = {
      VAULT_ADDR            = var.vault_address
      TENURE_AUTH_ROLE      = vault_aws_auth_backend_role.orders.role
      TENURE_TOKEN_ROLE     = vault_token_auth_backend_role.run.role_name
      TENURE_LAMBDA_METRICS = "on"
    }
  }
}

# --- Vault: the policies of ../../../policies, with the function's role ----------

resource "vault_policy" "tenure_login" {
  name   = "tenure-login"
  policy = file("${path.module}/../../../policies/vault/tenure-login.hcl")
}

resource "vault_policy" "orders" {
  name   = "orders"
  policy = file("${path.module}/../../../policies/vault/orders.hcl")
}

resource "vault_token_auth_backend_role" "run" {
  role_name               = "run"
  allowed_policies        = [vault_policy.orders.name]
  orphan                  = true
  renewable               = true
  token_type              = "service"
  token_no_default_policy = true
  token_explicit_max_ttl  = 43200
}

resource "vault_aws_auth_backend_role" "orders" {
  backend                  = "aws"
  role                     = "orders"
  auth_type                = "iam"
  bound_iam_principal_arns = [aws_iam_role.orders.arn]
  resolve_aws_unique_ids   = false
  token_type               = "service"
  token_policies           = [vault_policy.tenure_login.name]
  token_no_default_policy  = true
  token_ttl                = 3600
  token_max_ttl            = 86400
}
