package terraform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/tools/moto/mototest"
)

// An emulator is moto, with what Terraform needs to reach it.
type emulator struct {
	*mototest.Server
	terraform, mirror string
	ec2               *ec2.Client
	scheduler         *scheduler.Client
	vpc, subnet       string
}

const (
	testRegion  = "eu-central-1"
	testAccount = "123456789012" // moto's
)

// All modules that need AWS, on one emulator: it takes seconds to start.
func TestModulesOnAWS(t *testing.T) {
	t.Parallel()
	e := startEmulator(t)
	t.Run("train-aws-ec2", func(t *testing.T) { // one after the other: it counts instances
		t.Parallel()
		t.Run("is refused", e.testEC2PolicyRefuses)
		t.Run("is applied", e.testTrainOnEC2)
	})
	for _, m := range []terraformModule{artifacts(), githubOIDC(t)} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			e.testModuleOfPeople(t, m)
		})
	}
}

// startEmulator starts moto with a bucket for states, and builds the provider of tools/awsprovider.
func startEmulator(t *testing.T) *emulator {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	terraform := program(t)
	e := &emulator{terraform: terraform, mirror: providers(t), Server: mototest.Start(t)}
	keys := credentials.NewStaticCredentialsProvider("id", "key", "")
	e.ec2 = ec2.New(ec2.Options{Region: testRegion, BaseEndpoint: &e.URL, Credentials: keys})
	e.scheduler = scheduler.New(scheduler.Options{Region: testRegion, BaseEndpoint: &e.URL, Credentials: keys})
	e.Bucket(t, "states")
	subnets, err := e.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	e.subnet, e.vpc = *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	return e
}

// providers builds the provider and returns a mirror that has it as hashicorp/aws.
func providers(t *testing.T) string {
	t.Helper()
	mirror, err := buildProvider()
	if err != nil {
		t.Fatal(err)
	}
	return mirror
}

var buildProvider = sync.OnceValues(func() (mirror string, err error) {
	if mirror, err = os.MkdirTemp("", "aob-providers-"); err != nil { // run removes it
		return "", err
	}
	mirrors = append(mirrors, mirror)
	program := filepath.Join(mirror, "registry.terraform.io", "hashicorp", "aws", "5.32.0",
		runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-aws_v5.32.0")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "tools", "awsprovider")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the provider: %w\n%s", err, out)
	}
	folder := filepath.Dir(program)
	// OpenTofu has another name for the same providers.
	alias := strings.Replace(folder, "registry.terraform.io", "registry.opentofu.org", 1)
	if err := os.MkdirAll(filepath.Dir(alias), 0o700); err != nil {
		return "", err
	}
	if err := os.Symlink(folder, alias); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return mirror, nil
})

var mirrors []string // that are removed at the end

// env is the environment of Terraform: credentials, region and address.
func (e *emulator) env() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": testRegion,
		"AWS_ENDPOINT_URL": e.URL, "AWS_EC2_METADATA_DISABLED": "true"}
}

// module returns a module whose state is in the bucket of states.
func (e *emulator) module(files fs.FS, key string) Module {
	return Module{Exec: e.terraform, Files: files, Mirror: e.mirror, Backend: map[string]string{"bucket": "states",
		"key": key, "region": testRegion, "use_path_style": "true"}}
}

// values are those of a run with everything that a module can have.
func (e *emulator) values() EC2 {
	const run = "train-0123456789abcdef0123456789abcdef"
	return EC2{Run: run, Name: delivery.ThingName("aob.example", run), Attempt: 1,
		Home: "/opt/aob", Controller: "aob.example", Owner: "ada", Pull: "7", Expires: "2036-11-30T18:00:00Z",
		Minutes: 480, Silence: 15, Account: testAccount, Region: testRegion,
		Partition: "aws", VPC: e.vpc, Subnet: e.subnet, InstanceType: "g5.xlarge", Spot: true, MaxPrice: "1.006",
		AMIOwner: "amazon", AMIName: "amzn2-ami-hvm-2.0.*", DiskGB: 150, Bucket: "runs", Inputs: "runs/r/input/",
		Outputs: "runs/r/output/", Manifest: strings.Repeat("0a", 32), ScheduleGroup: "default",
		Image:           testAccount + ".dkr.ecr.eu-central-1.amazonaws.com/rfdetr@sha256:" + strings.Repeat("ab", 32),
		ImageRepository: "arn:aws:ecr:eu-central-1:" + testAccount + ":repository/rfdetr"}
}

// instances returns all instances that are not terminated.
func (e *emulator) instances(t *testing.T) []types.Instance {
	t.Helper()
	out, err := e.ec2.DescribeInstances(context.Background(), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	var list []types.Instance
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				list = append(list, i)
			}
		}
	}
	return list
}

// The module is applied and destroyed by the real Terraform, and the instance that moto then has is as wanted.
func (e *emulator) testTrainOnEC2(t *testing.T) {
	v := e.values()
	dir := filepath.Join(t.TempDir(), "stack")
	module := e.module(trainawsec2.Files, "runs/r.tfstate")
	module.Makes = v.Policy().addresses()
	s, err := module.Create(dir, v, v.Policy(), e.env())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := e.terraformOutput(t, s, "validate", "-no-color"); !strings.Contains(out, "The configuration is valid") {
		t.Errorf("terraform validate: %s", out)
	}
	if len(e.instances(t)) != 0 {
		t.Fatal("planning made an instance")
	}
	if err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	var id string
	if err := s.Output(t.Context(), "instance", &id); err != nil {
		t.Fatal(err)
	}
	list := e.instances(t)
	if len(list) != 1 || *list[0].InstanceId != id {
		t.Fatalf("the module says %s, and there are %d instances", id, len(list))
	}
	e.wantInstance(t, list[0], v)
	e.wantSchedule(t, v, id)
	if exists(filepath.Join(dir, stateFile)) {
		t.Error("there is a state in the stack's folder beside the one in the bucket")
	}

	e.wantOwnState(t, s)
	e.wantRoomForAnother(t, v)

	// A terraform that was killed leaves its lock in the bucket.
	e.Put(t, "states", "runs/r.tfstate.tflock", `{"ID":"0d3c5a4e-7f0e-4e7b-9a53-2f6a3b8c9d10","Operation":"`+
		`OperationTypeApply","Info":"","Who":"aob@gone","Version":"1.11.4","Created":"2026-11-01T00:00:00Z",`+
		`"Path":"states/runs/r.tfstate"}`)
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := e.instances(t); len(list) != 0 {
		t.Errorf("%d instances are left", len(list))
	}
	if err := s.Destroy(t.Context()); err != nil {
		t.Errorf("destroying again: %v", err)
	}
}

// wantRoomForAnother checks that another server of the account can train the same at the same time.
func (e *emulator) wantRoomForAnother(t *testing.T, v EC2) {
	t.Helper()
	v.Controller = "other.example"
	v.Name = delivery.ThingName(v.Controller, v.Run)
	module := e.module(trainawsec2.Files, "runs/other.tfstate")
	module.Makes = v.Policy().addresses()
	s, err := module.Create(filepath.Join(t.TempDir(), "stack"), v, v.Policy(), e.env())
	if err == nil {
		err = s.Plan(t.Context())
	}
	if err == nil {
		err = s.Apply(t.Context())
	}
	if err != nil || len(e.instances(t)) != 2 {
		t.Fatalf("%d instances, want one of each server: %v", len(e.instances(t)), err)
	}
	if err := s.Destroy(t.Context()); err != nil || len(e.instances(t)) != 1 {
		t.Errorf("%d instances, want that of the first server: %v", len(e.instances(t)), err)
	}
}

// wantOwnState checks that nothing is destroyed if somebody wrote into the state what the module does not make, as an
// object that the server's role may remove.
func (e *emulator) wantOwnState(t *testing.T, s *Stack) {
	t.Helper()
	text := e.terraformOutput(t, s, "state", "pull")
	foreign := `{"mode": "managed", "type": "aws_s3_object", "name": "evidence", "provider": ` +
		`"provider[\"registry.terraform.io/hashicorp/aws\"]", "instances": [{"schema_version": 0, "attributes": {` +
		`"bucket": "acme-aob-bundles", "key": "evidence", "id": "evidence"}}]},`
	e.Put(t, "states", "runs/r.tfstate", strings.Replace(text, `"resources": [`, `"resources": [`+foreign, 1))
	err := s.Destroy(t.Context())
	if _, is := errors.AsType[delivery.Blocked](err); !is || !strings.Contains(err.Error(), "the state "+
		"states/runs/r.tfstate has aws_s3_object.evidence, which AOB's module does not make") {
		t.Errorf("error %v, want the state refused", err)
	}
	if len(e.instances(t)) != 1 {
		t.Error("something was destroyed")
	}
	e.Put(t, "states", "runs/r.tfstate", text)
}

// wantInstance checks what the call that made the instance has said.
func (e *emulator) wantInstance(t *testing.T, i types.Instance, v EC2) {
	t.Helper()
	m := i.MetadataOptions
	if m.HttpTokens != types.HttpTokensStateRequired || aws.ToInt32(m.HttpPutResponseHopLimit) != 1 {
		t.Errorf("metadata options: %s, hop limit %d", m.HttpTokens, aws.ToInt32(m.HttpPutResponseHopLimit))
	}
	if i.InstanceLifecycle != types.InstanceLifecycleTypeSpot || i.InstanceType != "g5.xlarge" ||
		i.PublicIpAddress != nil {
		t.Errorf("lifecycle %q, type %s, public address %s", i.InstanceLifecycle, i.InstanceType,
			aws.ToString(i.PublicIpAddress))
	}
	if i.IamInstanceProfile == nil || !strings.HasSuffix(*i.IamInstanceProfile.Arn, "/aob/"+v.name()) {
		t.Errorf("instance profile %v", i.IamInstanceProfile)
	}
	volumes, err := e.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, volume := range volumes.Volumes {
		if !aws.ToBool(volume.Encrypted) {
			t.Errorf("volume %s is not encrypted", *volume.VolumeId)
		}
	}
	for _, d := range i.BlockDeviceMappings {
		if !aws.ToBool(d.Ebs.DeleteOnTermination) {
			t.Errorf("volume %s outlives the instance", *d.Ebs.VolumeId)
		}
	}
	shutdown, err := e.ec2.DescribeInstanceAttribute(t.Context(), &ec2.DescribeInstanceAttributeInput{
		InstanceId: i.InstanceId, Attribute: types.InstanceAttributeNameInstanceInitiatedShutdownBehavior})
	if err != nil || aws.ToString(shutdown.InstanceInitiatedShutdownBehavior.Value) != "terminate" {
		t.Errorf("shutdown: %v, %v", shutdown, err)
	}
	groups, err := e.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{
		GroupIds: []string{*i.NetworkInterfaces[0].Groups[0].GroupId}})
	if err != nil || len(groups.SecurityGroups[0].IpPermissions) != 0 ||
		len(groups.SecurityGroups[0].IpPermissionsEgress) != 1 {
		t.Errorf("security group: %+v, %v", groups, err)
	}
	tagged, err := e.ec2.DescribeTags(t.Context(), &ec2.DescribeTagsInput{})
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]map[string]string{}
	for _, tag := range tagged.Tags {
		id := *tag.ResourceId
		if tags[id] == nil {
			tags[id] = map[string]string{}
		}
		if !strings.HasPrefix(*tag.Key, "aws:") { // those are Amazon's own
			tags[id][*tag.Key] = *tag.Value
		}
	}
	want := map[string]string{"Name": v.name(), cloud.TagController: v.Controller, cloud.TagRun: v.Run,
		cloud.TagOwner: v.Owner, cloud.TagPull: v.Pull, cloud.TagExpires: v.Expires}
	things := []string{*i.InstanceId, *i.NetworkInterfaces[0].Groups[0].GroupId}
	for _, volume := range volumes.Volumes {
		things = append(things, *volume.VolumeId)
	}
	for _, id := range things {
		if !maps.Equal(tags[id], want) {
			t.Errorf("tags of %s: %v, want %v", id, tags[id], want)
		}
	}
}

func (e *emulator) wantSchedule(t *testing.T, v EC2, id string) {
	t.Helper()
	s, err := e.scheduler.GetSchedule(t.Context(), &scheduler.GetScheduleInput{Name: &v.Name})
	if err != nil {
		t.Fatal(err)
	}
	if *s.ScheduleExpression != "at(2036-11-30T18:00:00)" || *s.Target.Input != `{"InstanceIds":["`+id+`"]}` ||
		*s.Target.Arn != "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances" {
		t.Errorf("schedule %s of %s with %s", *s.ScheduleExpression, *s.Target.Arn, *s.Target.Input)
	}
}

// Values that could leave their quotes in the user data, or mean something else than they seem to, are refused.
func TestEC2Values(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	terraform := program(t)
	module := files(t, trainawsec2.Files)
	text := strings.Replace(string(module["main.tf"].Data), `backend "s3" {`, `backend "local" {`, 1)
	module["main.tf"].Data = []byte(strings.NewReplacer("    encrypt      = true\n", "",
		"    use_lockfile = true\n", "").Replace(text))
	const quoted = "x'; shutdown -c; '"
	bad := EC2{Run: quoted, Name: quoted, Attempt: -1, Home: quoted, Controller: quoted, Owner: quoted, Pull: quoted,
		Minutes: 100000, Silence: 0, Expires: "2036-11-30T18:00:00+02:00",
		Account: quoted, Region: quoted, Partition: quoted, VPC: quoted,
		Subnet: quoted, InstanceType: quoted, Spot: true, AMI: quoted, AMIOwner: quoted, DiskGB: 1, Bucket: quoted,
		Inputs: "../x/", Outputs: quoted, Manifest: quoted, Image: "rfdetr:latest", ImageRepository: quoted,
		ScheduleGroup: quoted, PermissionsBoundary: quoted}
	dir := filepath.Join(t.TempDir(), "stack")
	s, err := Module{Exec: terraform, Mirror: providers(t), Files: module}.Create(dir, bad, bad.Policy(),
		(&emulator{Server: &mototest.Server{}}).env())
	if err != nil {
		t.Fatal(err)
	}
	wantRefusedValues := func(err error, names ...string) {
		t.Helper()
		var whole stepError
		if !errors.As(err, &whole) {
			t.Fatalf("error %v, want one of Terraform", err)
		}
		for _, name := range names {
			text := whole.err.Error() // Terraform shows the value's line, OpenTofu the variable's
			if !strings.Contains(text, `  "`+name+`": `) && !strings.Contains(text, `: variable "`+name+`" {`) {
				t.Errorf("%s is not refused: %v", name, whole.err)
			}
		}
	}
	wantRefusedValues(s.Plan(t.Context()), "run", "name", "attempt", "home", "controller", "owner", "pull", "minutes",
		"silence_minutes",
		"expires", "account", "region", "partition", "vpc", "subnet", "instance_type", "max_price", "ami", "ami_owner",
		"disk_gb", "bucket", "inputs", "manifest", "image", "image_repository", "schedule_group",
		"permissions_boundary")

	bad.Inputs, bad.Outputs = "r/", "r/output/" // which could overwrite inputs
	if err := durable.WriteJSON(filepath.Join(s.dir, varsFile), bad); err != nil {
		t.Fatal(err)
	}
	wantRefusedValues(s.plan(t.Context()), "outputs")
}

// files returns a module's files, which a test may change.
func files(t *testing.T, module fs.FS) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	err := fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(module, name)
		out[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
