package terraform

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/tools/moto/front"
)

// An attempt is ended without any state of Terraform, although lists show changes late: exactly what has the tags of
// its run and its server.
func TestStopWithoutState(t *testing.T) {
	t.Parallel()
	e := startEmulator(t)
	f := &front.Front{Stale: 2}
	e.URL = f.Start(t, e.URL)
	account, err := cloud.OpenAccount(t.Context(), cloud.AccountAddress{Regions: []string{testRegion}, Endpoint: e.URL,
		KeyID: "id", Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	images, err := e.ec2.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: []types.Filter{{
		Name: aws.String("name"), Values: []string{"amzn2-ami-hvm-2.0.*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	v := e.values()
	runs := func(controller, run string) {
		t.Helper()
		var tags []types.Tag
		for key, value := range map[string]string{cloud.TagController: controller, cloud.TagRun: run,
			"Name": v.name()} {
			tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
		}
		if _, err := e.ec2.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: images.Images[0].ImageId,
			InstanceType: "g5.xlarge", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeInstance,
				Tags: tags}}}); err != nil {
			t.Fatal(err)
		}
	}
	m := &AWS{Account: Account{Region: testRegion, Every: 50 * time.Millisecond}, Things: account}
	attempt := filepath.Join(t.TempDir(), v.Run, "attempts", "1")
	if err := m.Stop(t.Context(), attempt); err != nil {
		t.Errorf("an attempt that made nothing: %v", err)
	}
	if err := mkdir(filepath.Join(attempt, stackFolder)); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteJSON(filepath.Join(attempt, stackFolder, varsFile), v); err != nil {
		t.Fatal(err)
	}
	runs(v.Controller, v.Run)
	runs(v.Controller, v.Run) // a call that was repeated
	runs(v.Controller, "train-of-another")
	runs("another.example", v.Run)
	if err := m.Stop(t.Context(), attempt); err != nil {
		t.Fatal(err)
	}
	for range 5 { // until lists show it
		e.instances(t)
	}
	if list := e.instances(t); len(list) != 2 {
		t.Errorf("%d instances are left, want those of another run and another server", len(list))
	}
}
