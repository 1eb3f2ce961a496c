package terraform

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/autonomos/aob/reconciler/delivery"
)

// This file is about a state in a bucket, which others than AOB may be able to write.

// own returns an error if the stack's state has something that the module does not make: destroying it could remove
// whatever the server's role may remove.
func (s *Stack) own(ctx context.Context) error {
	if s.makes == nil {
		return nil
	}
	var text string
	err := s.step(ctx, "state pull", func(ctx context.Context, tf *tfexec.Terraform) (err error) {
		tf.SetStdout(nil) // keep the state out of the log
		text, err = tf.StatePull(ctx)
		return err
	})
	if err != nil || strings.TrimSpace(text) == "" {
		return err
	}
	var state struct {
		Resources []struct{ Module, Mode, Type, Name string }
	}
	at := s.backend["bucket"] + "/" + s.backend["key"]
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return fmt.Errorf("the state %s cannot be read: %w", at, err)
	}
	for _, r := range state.Resources {
		if address := r.Type + "." + r.Name; r.Mode == "managed" &&
			(r.Module != "" || !slices.Contains(s.makes, address)) {
			return delivery.Blockedf("find out who wrote it, remove it from the bucket, and let the training go on: "+
				"aob pr recheck NUMBER", "the state %s has %s, which AOB's module does not make, so nothing in it is "+
				"destroyed; what has the run's tags is ended all the same", at, delivery.PlainText(address, 100))
		}
	}
	return nil
}

// addresses are those of all that a policy's plan creates, without indexes.
func (p Policy) addresses() (list []string) {
	for _, r := range p.Resources {
		list = append(list, base(r.Address))
	}
	return list
}
