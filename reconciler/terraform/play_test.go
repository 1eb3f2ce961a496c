package terraform

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// A play is the instances of one run, which leave in the bucket what boot.sh and a trainer leave there.
type play struct {
	house *house
	run   string

	hold chan struct{} // is closed when instances may train to the end

	mu        sync.Mutex
	all       map[string]*player
	finishing sync.WaitGroup // those that have trained to the end and copy it
	done      int            // trainings to the end
}

// A player is one instance.
type player struct {
	play  *play
	id    string
	env   map[string]string // of its user data
	stop  context.CancelFunc
	ended chan struct{}
}

// An epoch takes so long, and a training has so many.
const (
	playedEpoch  = 100 * time.Millisecond
	playedEpochs = 5
)

// look starts the instances that the account has, and stops those that it has ended.
func (p *play) look(call string) {
	if call != "RunInstances" && call != "TerminateInstances" {
		return
	}
	running := map[string]bool{}
	list, err := p.house.listOf(context.Background(), p.run)
	if err != nil {
		return // the test is over
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range list {
		id := *i.InstanceId
		running[id] = true
		if p.all[id] == nil {
			p.all[id] = p.start(id)
		}
	}
	for id, one := range p.all {
		if !running[id] {
			one.stop()
		}
	}
}

// before has an instance that has trained to the end copy its output before it is ended, as boot.sh does.
func (p *play) before(call string) {
	if call == "TerminateInstances" {
		p.finishing.Wait()
	}
}

// end does not hold the lock while it waits: a player takes it before it ends.
func (p *play) end() {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.all))
	p.mu.Unlock()
	for _, one := range all {
		one.stop()
		<-one.ended
	}
}

func (p *play) completed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

var exported = regexp.MustCompile(`(?m)^export ([A-Z_]+)='([^']*)'$`)

func (p *play) start(id string) *player {
	ctx, stop := context.WithCancel(context.Background())
	one := &player{play: p, id: id, env: map[string]string{}, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(one.ended)
		data, err := p.house.userData(ctx, id)
		if err != nil {
			return
		}
		for _, m := range exported.FindAllStringSubmatch(data, -1) {
			one.env[m[1]] = m[2]
		}
		one.train(ctx)
	}()
	return one
}

// train goes on from the checkpoint in the bucket.
func (o *player) train(ctx context.Context) {
	outputs := o.env["AOB_OUTPUTS"]
	boot := outputs + "boot/" + o.env["AOB_ATTEMPT"] + "/"
	status := func(phase string, epoch int) string {
		return fmt.Sprintf(`{"phase":%q,"epoch":%d,"epochs":%d,"heartbeat":%q}`, phase, epoch, playedEpochs,
			time.Now().UTC().Format(time.RFC3339Nano))
	}
	text, _ := objectOf(ctx, o.play.house.objects, "runs", outputs+"checkpoint")
	epoch, _ := strconv.Atoi(string(text))
	for ; epoch < playedEpochs; epoch++ {
		o.put(ctx, outputs+"checkpoint", strconv.Itoa(epoch))
		o.put(ctx, boot+"status.json", status("training", epoch))
		select {
		case <-ctx.Done():
			return
		case <-time.After(playedEpoch):
		}
	}
	select {
	case <-ctx.Done():
	case <-o.play.hold:
	}
	o.play.mu.Lock()
	if ctx.Err() != nil {
		o.play.mu.Unlock()
		return
	}
	o.play.done++
	o.play.finishing.Add(1)
	o.play.mu.Unlock()
	defer o.play.finishing.Done()
	ctx = context.WithoutCancel(ctx)
	for _, object := range [][2]string{
		{outputs + "checkpoint", strconv.Itoa(epoch)}, {outputs + "model.onnx", "weights"},
		{outputs + "train.json", "{}"}, {boot + "status.json", status("done", epoch)},
		{boot + "exit.json", `{"code":0,"reason":"the trainer ended"}`}} {
		o.put(ctx, object[0], object[1])
	}
}

func (o *player) put(ctx context.Context, key, text string) {
	_, _ = o.play.house.objects.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("runs"), Key: &key,
		Body: strings.NewReader(text)})
}

// expire is what the timers of the instances do at the expiry: a shutdown, which terminates them. TestBoot shows that
// boot.sh sets these timers before it does anything else.
func (p *play) expire() {
	p.mu.Lock()
	var ids []string
	for id, one := range p.all {
		select {
		case <-one.ended:
		default:
			ids = append(ids, id)
		}
	}
	p.mu.Unlock()
	for _, id := range ids {
		_, _ = p.house.ec2.TerminateInstances(context.Background(),
			&ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	}
}

func storeClient(address string) *s3.Client {
	return s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &address, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(versitytest.KeyID, versitytest.Key, "")})
}

func objectOf(ctx context.Context, client *s3.Client, bucket, key string) ([]byte, error) {
	out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// listOf lists the instances of a run that are not ended.
func (h *house) listOf(ctx context.Context, run string) (list []types.Instance, err error) {
	out, err := h.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{
		{Name: aws.String("tag:" + cloud.TagRun), Values: []string{run}},
		{Name: aws.String("instance-state-name"), Values: []string{"pending", "running"}}}})
	if err != nil {
		return nil, err
	}
	for _, r := range out.Reservations {
		list = append(list, r.Instances...)
	}
	return list, nil
}

func (h *house) instancesOf(t *testing.T, run string) []types.Instance {
	t.Helper()
	list, err := h.listOf(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (h *house) userData(ctx context.Context, id string) (string, error) {
	out, err := h.ec2.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{InstanceId: &id,
		Attribute: types.InstanceAttributeNameUserData})
	if err != nil {
		return "", err
	}
	data, err := base64.StdEncoding.DecodeString(aws.ToString(out.UserData.Value))
	return string(data), err
}
