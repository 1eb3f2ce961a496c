package terraform

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Validate checks that Terraform reads the module and finds its providers. It reaches no cloud and no state.
func (m Module) Validate(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "aob-validate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := m.Create(dir, struct{}{}, Policy{}, nil)
	if err != nil {
		return err
	}
	err = s.step(ctx, "init", func(ctx context.Context, tf *tfexec.Terraform) error {
		return tf.Init(ctx, tfexec.Upgrade(false), tfexec.Backend(false))
	})
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), " To see which modules")
		text, _, _ = strings.Cut(text, " (full log:") // which is gone
		return delivery.Blockedf(fmt.Sprintf("run terraform providers mirror %s in infra/terraform/train-aws-ec2 of "+
			"AOB's source, with Terraform or OpenTofu 1.10 or newer", m.Mirror), "Terraform does not find the "+
			"module's provider in %s: %s", m.Mirror, delivery.Cut(text, 300))
	}
	return s.step(ctx, "validate", func(ctx context.Context, tf *tfexec.Terraform) error {
		_, err := tf.Validate(ctx)
		return err
	})
}
