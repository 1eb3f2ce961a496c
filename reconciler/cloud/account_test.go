package cloud

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	schedulertypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
)

// Tests of a crash start this binary again with the address of an account.
const sweepAddress = "CLOUD_TEST_SWEEP_ADDRESS"

func TestMain(m *testing.M) {
	if address := os.Getenv(sweepAddress); address != "" {
		s, err := sweeperAt(context.Background(), address, nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s.Sweep(context.Background())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var threeRegions = []string{"eu-west-1", "us-east-1", "us-west-2"}

func sweeperAt(ctx context.Context, address string, of map[string]Life) (*Sweeper, error) {
	a, err := OpenAccount(ctx, AccountAddress{Regions: threeRegions, Endpoint: address, KeyID: "id", Key: "key"})
	s := &Sweeper{Account: a, Controller: "aob", Log: slog.New(slog.DiscardHandler)}
	if of != nil {
		s.Runs = func(context.Context) (func(string) Life, error) { return life(of), nil }
	}
	return s, err
}

// A motoAccount is an account in moto, which is asked directly.
type motoAccount struct {
	*testing.T
	*Account
}

// image is an image that moto takes, as any.
const image = "ami-12c6146b"

func newMotoAccount(t *testing.T, address string) *motoAccount {
	a, err := OpenAccount(t.Context(), AccountAddress{Regions: threeRegions, Endpoint: address, KeyID: "id",
		Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	return &motoAccount{T: t, Account: a}
}

func ec2Tags(tags map[string]string) (list []ec2types.Tag) {
	for k, v := range tags {
		list = append(list, ec2types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	return list
}

// start starts instances, and returns their ids.
func (m *motoAccount) start(region string, n int, tags map[string]string) (ids []string) {
	m.Helper()
	input := &ec2.RunInstancesInput{ImageId: aws.String(image), MinCount: aws.Int32(int32(n)),
		MaxCount: aws.Int32(int32(n)), InstanceType: ec2types.InstanceTypeG5Xlarge}
	for _, kind := range []ec2types.ResourceType{"instance", "volume"} {
		if len(tags) > 0 {
			input.TagSpecifications = append(input.TagSpecifications, ec2types.TagSpecification{ResourceType: kind,
				Tags: ec2Tags(tags)})
		}
	}
	out, err := m.ec2(region).RunInstances(m.Context(), input)
	if err != nil {
		m.Fatal(err)
	}
	for _, i := range out.Instances {
		ids = append(ids, *i.InstanceId)
	}
	return ids
}

// ended lists the instances that run no more, by region and id.
func (m *motoAccount) ended() map[string]bool {
	m.Helper()
	ended := map[string]bool{}
	for _, region := range threeRegions {
		p := ec2.NewDescribeInstancesPaginator(m.ec2(region), &ec2.DescribeInstancesInput{})
		for p.HasMorePages() {
			page, err := p.NextPage(m.Context())
			if err != nil {
				m.Fatal(err)
			}
			for _, r := range page.Reservations {
				for _, i := range r.Instances {
					if s := i.State.Name; s == "terminated" || s == "shutting-down" {
						ended[region+" "+*i.InstanceId] = true
					}
				}
			}
		}
	}
	return ended
}

func tagsFor(controller, run string, expires time.Time) map[string]string {
	return map[string]string{TagController: controller, TagRun: run, TagPull: "7",
		TagExpires: expires.UTC().Format(time.RFC3339)}
}

// fill makes 500 instances in three regions. Seven are ours and have expired; it returns those.
func (m *motoAccount) fill() map[string]bool {
	m.Helper()
	past, later := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	want := map[string]bool{}
	for i, region := range threeRegions {
		for _, id := range m.start(region, 2+i%2, tagsFor("aob", "train-over", past)) {
			want[region+" "+id] = true
		}
		m.start(region, 5, tagsFor("aob", "train-on", later))
		m.start(region, 10, tagsFor("other", "train-over", past))
		m.start(region, 10, tagsFor("aob-2", "train-over", past))
		m.start(region, 10, map[string]string{"Name": "aob", "controller": "aob"})
		m.start(region, 128+i/2*5, nil)
	}
	return want
}

// Of 500 instances in three regions, of which seven are ours and expired, exactly those are ended: while calls are
// refused because they come too fast, lists have pages, changes show late, and the sweep is killed around each call.
func TestSweepEndsExactlyTheExpired(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: run it without -short")
	}
	moto := mototest.Start(t)
	m := newMotoAccount(t, moto.URL)
	want := m.fill()
	total := 0
	var pid atomic.Int64
	var kill atomic.Int32 // so many ends from now
	ends := func(name string) {
		if name == "TerminateInstances" && kill.Add(-1) == 0 {
			if p, err := os.FindProcess(int(pid.Load())); err == nil {
				_ = p.Kill()
			}
		}
	}
	f := &front.Front{Throttle: 7, Page: 2, Stale: 1}
	crashes := 0
	for round := 0; ; round++ {
		if round%2 == 0 {
			f.Before, f.After = ends, nil
		} else {
			f.Before, f.After = nil, ends
		}
		address := f.Start(t, moto.URL)
		kill.Store(int32(1 + round%3))
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), sweepAddress+"="+address)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		pid.Store(int64(child.Process.Pid))
		err := child.Wait()
		total += f.Count("TerminateInstances")
		for id := range m.ended() {
			if !want[id] {
				t.Fatalf("round %d: %s was ended, and is not ours or has not expired", round, id)
			}
		}
		if err == nil {
			break // it has come to its end
		}
		if crashes++; crashes > 20 {
			t.Fatal("it makes no progress between crashes")
		}
	}
	if got := m.ended(); !maps.Equal(got, want) {
		t.Errorf("ended %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	if len(want) != 7 || crashes < 3 {
		t.Errorf("%d instances, %d crashes: the test does not show what it should", len(want), crashes)
	}
	t.Logf("%d crashes, %d calls to end %d instances", crashes, total, len(want))

	s, err := sweeperAt(t.Context(), moto.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if swept := s.Sweep(t.Context()); len(swept.Orphans) > 0 || len(swept.Failed) > 0 || swept.Listed != 15 {
		t.Errorf("a sweep afterwards: %+v", swept)
	}
}

// What is in an account besides instances: volumes, spot requests and schedules of runs that ended or are not known.
func TestSweepEndsAllKinds(t *testing.T) {
	moto := mototest.Start(t)
	m := newMotoAccount(t, moto.URL)
	const region = "us-east-1"
	client, later := m.ec2(region), time.Now().Add(time.Hour)
	volume := func(controller, run string) string {
		out, err := client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: aws.String(region + "a"),
			Size: aws.Int32(8), TagSpecifications: []ec2types.TagSpecification{{ResourceType: "volume",
				Tags: ec2Tags(tagsFor(controller, run, later))}}})
		if err != nil {
			t.Fatal(err)
		}
		return *out.VolumeId
	}
	request := func(controller, run string) string {
		out, err := client.RequestSpotInstances(t.Context(), &ec2.RequestSpotInstancesInput{
			LaunchSpecification: &ec2types.RequestSpotLaunchSpecification{ImageId: aws.String(image),
				InstanceType: ec2types.InstanceTypeG5Xlarge},
			TagSpecifications: []ec2types.TagSpecification{{ResourceType: "spot-instances-request",
				Tags: ec2Tags(tagsFor(controller, run, later))}}})
		if err != nil {
			t.Fatal(err)
		}
		return *out.SpotInstanceRequests[0].SpotInstanceRequestId
	}
	plans := m.scheduler(region)
	plan := func(group, run, role string) {
		_, err := plans.CreateSchedule(t.Context(), &scheduler.CreateScheduleInput{GroupName: &group, Name: &run,
			ScheduleExpression: aws.String("at(2099-12-01T00:00:00)"),
			FlexibleTimeWindow: &schedulertypes.FlexibleTimeWindow{Mode: "OFF"},
			Target: &schedulertypes.Target{Arn: aws.String("arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"),
				RoleArn: aws.String("arn:aws:iam::1:role/" + role)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	group := func(name, controller string) {
		_, err := plans.CreateScheduleGroup(t.Context(), &scheduler.CreateScheduleGroupInput{Name: &name,
			Tags: []schedulertypes.Tag{{Key: aws.String(TagController), Value: &controller}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range []string{"train-over", "train-on"} {
			plan(name, delivery.ThingName(controller, run), "x")
		}
	}
	// In the default group a schedule is whose role it has.
	roleOf := func(run string) string { return "aob-" + delivery.ThingName("aob", run) + "-1-end" }
	for _, s := range []struct{ run, role, controller string }{{"train-over", roleOf("train-over"), "aob"},
		{"train-on", roleOf("train-on"), "aob"}, {"train-theirs", roleOf("train-theirs"), "other"},
		{"train-other-role", roleOf("train-over"), ""}, {"train-no-role", roleOf("train-no-role"), ""}} {
		plan("default", delivery.ThingName("aob", s.run), "aob/"+s.role)
		if s.controller == "" {
			continue
		}
		tags := []iamtypes.Tag{{Key: aws.String(TagController), Value: &s.controller},
			{Key: aws.String(TagRun), Value: &s.run}}
		_, err := iam.NewFromConfig(m.config, func(o *iam.Options) { o.Region = region }).CreateRole(t.Context(),
			&iam.CreateRoleInput{RoleName: &s.role, Path: aws.String("/aob/"), Tags: tags,
				AssumeRolePolicyDocument: aws.String("{}")})
		if err != nil {
			t.Fatal(err)
		}
	}
	group("aob-main", "aob")
	group("aob-theirs", "other")
	over := m.start(region, 1, tagsFor("aob", "train-over", later))[0]
	on := m.start(region, 1, tagsFor("aob", "train-on", later))[0]
	volumeOver, volumeOther := volume("aob", "train-over"), volume("other", "train-over")
	volume("aob", "train-on")
	requestOver, _ := request("aob", "train-over"), request("other", "train-over")

	s, err := sweeperAt(t.Context(), moto.URL, map[string]Life{"train-over": RunOver, "train-on": RunAlive})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 3 { // a schedule goes once its instance is gone
		swept := s.Sweep(t.Context())
		if len(swept.Failed) > 0 || swept.Runs != nil {
			t.Fatalf("%+v", swept)
		}
		for _, o := range swept.Orphans {
			if ids = append(ids, o.ID); o.Error != "" || o.Why != delivery.OrphanEnded || o.Pull != 7 &&
				o.Kind != delivery.OrphanSchedule {
				t.Errorf("%+v", o)
			}
		}
	}
	name := delivery.ThingName("aob", "train-over")
	want := []string{requestOver, over, volumeOver, "aob-main/" + name, "default/" + name}
	if !slices.Equal(ids, want) {
		t.Errorf("ended %v, want %v", ids, want)
	}
	if got := len(s.Found()); got != 5 {
		t.Errorf("%d orphans were found", got)
	}
	left, err := client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{volumeOther}})
	if err != nil || len(left.Volumes) != 1 {
		t.Errorf("the volume of another controller: %v", err)
	}
	if ended := m.ended(); len(ended) != 1 || ended[region+" "+on] {
		t.Errorf("ended %v", ended)
	}
	if list, err := plans.ListSchedules(t.Context(), &scheduler.ListSchedulesInput{}); err != nil ||
		len(list.Schedules) != 7 {
		t.Errorf("%d schedules are left, %v", len(list.Schedules), err)
	}

	// A run that ends removes its own schedule, and none of another server that trains the same.
	for _, run := range []string{"train-on", "train-theirs", "train-other-role", "train-no-role", "train-missing"} {
		if err := m.EndSchedule(t.Context(), region, "aob", "default", delivery.ThingName("aob", run)); err != nil {
			t.Errorf("%s: %v", run, err)
		}
	}
	list, err := plans.ListSchedules(t.Context(), &scheduler.ListSchedulesInput{GroupName: aws.String("default")})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.Schedules {
		names = append(names, *s.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{delivery.ThingName("aob", "train-other-role"),
		delivery.ThingName("aob", "train-theirs")}) {
		t.Errorf("schedules %q are left", names)
	}
}

// One instance that cannot be ended, and a region that refuses, do not stop the others. The error says what to do.
func TestSweepGoesOnAfterErrors(t *testing.T) {
	moto := mototest.Start(t)
	m := newMotoAccount(t, moto.URL)
	past := time.Now().Add(-time.Minute)
	kept := m.start("eu-west-1", 1, tagsFor("aob", "train-1", past))[0]
	_, err := m.ec2("eu-west-1").ModifyInstanceAttribute(t.Context(), &ec2.ModifyInstanceAttributeInput{
		InstanceId: &kept, DisableApiTermination: &ec2types.AttributeBooleanValue{Value: aws.Bool(true)}})
	if err != nil {
		t.Fatal(err)
	}
	next := m.start("us-west-2", 1, tagsFor("aob", "train-1", past))[0]
	var log bytes.Buffer
	s, err := sweeperAt(t.Context(), moto.URL, map[string]Life{})
	if err != nil {
		t.Fatal(err)
	}
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	swept := s.Sweep(t.Context())
	if ended := m.ended(); !maps.Equal(ended, map[string]bool{"us-west-2 " + next: true}) {
		t.Errorf("ended %v, want %s", ended, next)
	}
	if len(swept.Orphans) != 2 || !strings.Contains(swept.Orphans[0].Error, "termination protection") ||
		!strings.Contains(log.String(), kept) {
		t.Errorf("%+v\n%s", swept.Orphans, log.String())
	}
	// Without an answer nothing is ended, and the clock of this machine does not count.
	s, err = sweeperAt(t.Context(), "http://127.0.0.1:1", map[string]Life{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if swept := s.Sweep(ctx); len(swept.Orphans) > 0 || !swept.At.IsZero() || len(swept.Failed) == 0 {
		t.Errorf("without an answer: %+v", swept)
	}
}
