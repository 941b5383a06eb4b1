// The AWS auth plugin for OpenBao, which ships none.
//
// 1.18 is the last line whose plugins do not call the rotation API that OpenBao lacks.
module tenure.test/stack/openbao-aws

go 1.25.3

require (
	github.com/hashicorp/vault v1.18.0
	github.com/hashicorp/vault/sdk v0.14.0
)

replace github.com/pires/go-proxyproto => github.com/pires/go-proxyproto v0.8.0
