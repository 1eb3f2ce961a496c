// Command terraform-provider-aws is a Terraform provider for tests. The real AWS provider is a gigabyte that is not
// everywhere to be had. This one has the real one's schema for the types in schema.json, so Terraform refuses what the
// real schema refuses, and it creates, reads and deletes with real calls to AWS, which tests send to an emulator by
// AWS_ENDPOINT_URL. It is a module of its own, so that nothing of it reaches AOB's programs.
//
// terraform-plugin-go serves a schema that is data. terraform-plugin-framework, which is built on it, wants schemas
// written as Go values.
//
// Terraform finds it in a filesystem mirror as hashicorp/aws 5.32.0; see the tests of reconciler/terraform.
package main

import (
	"log"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
)

func main() {
	p, err := newProvider()
	if err != nil {
		log.Fatal(err)
	}
	err = tf5server.Serve("registry.terraform.io/hashicorp/aws", func() tfprotov5.ProviderServer { return p })
	if err != nil {
		log.Fatal(err)
	}
}
