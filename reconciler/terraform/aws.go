package terraform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// This file makes the values of one attempt on EC2, and ends what an attempt has in the account.

// Times of an attempt.
const (
	margin    = 20 * time.Minute // to boot, to copy the output and to end, beside the limit
	shortest  = 15 * time.Minute // what an attempt must be able to last to be worth its boot
	longest   = 10080            // minutes, of the module
	appearing = 5 * time.Minute  // until an instance that was made must be in the account's lists
	ending    = 2 * time.Minute  // for an instance that is shutting down
	lists     = 3                // in a row without anything of the run: a list may be older than what was made
)

// Pace implements [Machine]. Amazon itself takes minutes to end an instance.
func (m *AWS) Pace() Pace { return Pace{Every: m.Account.filled().Every, Cleanup: 20 * time.Minute} }

// Module implements [Machine].
func (m *AWS) Module(module Module, attempt string) Module {
	a := m.Account.filled()
	module.Mirror, module.Makes = a.Mirror, EC2{}.Policy().addresses()
	run := filepath.Base(filepath.Dir(filepath.Dir(attempt)))
	module.Backend = map[string]string{"bucket": a.States, "region": a.Region,
		"key": a.Prefix + run + "/" + filepath.Base(attempt) + ".tfstate"}
	if a.Endpoint != "" {
		module.Backend["use_path_style"] = "true"
	}
	return module
}

// Env implements [Machine].
func (m *AWS) Env(ctx context.Context) (map[string]string, error) {
	env, err := m.Things.Variables(ctx)
	if err != nil {
		return nil, err
	}
	env = maps.Clone(env)
	env["AWS_REGION"], env["AWS_EC2_METADATA_DISABLED"] = m.Account.Region, "true"
	return env, nil
}

// Prepare implements [Machine]: it uploads the inputs.
func (m *AWS) Prepare(ctx context.Context, req trainer.Request, next Next) (Launching, error) {
	a := m.Account.filled()
	m.versions, m.heard = nil, time.Time{}
	v, err := m.values(req, next, time.Now())
	if err != nil {
		return Launching{}, err
	}
	if err := m.clear(ctx, v); err != nil {
		return Launching{}, err
	}
	note := func(text string) error { return say(req, text) }
	if err := stage(req, "upload"); err != nil {
		return Launching{}, err
	}
	up := &upload{objects: m.Objects, at: v.Inputs, dir: filepath.Join(req.Dir, "upload"), note: note}
	manifest, err := up.inputs(ctx, req, a.Home, v.Image == "")
	if err == nil { // the upload may have taken long, and the instance lives from now on
		v, err = m.values(req, next, time.Now())
	}
	if err != nil {
		return Launching{}, err
	}
	v.Manifest = manifest
	return Launching{Launch: launch{Argv: []string{"train-aws-ec2"}}, Vars: v, Policy: v.Policy(),
		Tell: func(text string) { _ = note(text) }, // a line that is not shown is no reason to end
		Explain: func(err error) error {
			return explainApply(err, v, len(next.Earlier))
		},
		Applied: func(output func(string, any) error) error {
			var id string
			if err := output("instance", &id); err != nil {
				return err
			}
			return say(req, "instance "+id+" boots")
		}}, nil
}

// clear removes what an attempt of the same number has left that nothing here knows of any more, as after a loss of the
// server's disk: it would be taken for what this attempt tells.
func (m *AWS) clear(ctx context.Context, v EC2) error {
	things, err := m.Things.OfRun(ctx, v.Region, v.Controller, v.Run)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(things, delivery.Thing.Costs) {
		if err := m.end(ctx, v); err != nil {
			return err
		}
	}
	var keys []string
	err = m.Objects.List(ctx, v.boot(), func(key string, _ int64, _ string) error {
		keys = append(keys, key)
		return nil
	})
	for _, key := range keys {
		err = errors.Join(err, m.Objects.Remove(ctx, key))
	}
	return err
}

// say writes a status of which the trainer knows nothing.
func say(req trainer.Request, text string) error {
	status := delivery.RunStatus{Phase: "starting", Message: text, Heartbeat: time.Now().UTC()}
	if err := durable.WriteJSON(filepath.Join(req.Dir, outputDir, statusFile), status); err != nil ||
		req.Progress == nil {
		return err
	}
	return req.Progress(status)
}

// values returns the module's values for an attempt.
func (m *AWS) values(req trainer.Request, next Next, now time.Time) (EC2, error) {
	a, q := m.Account.filled(), req.Quote
	if len(req.Secrets) > 0 {
		return EC2{}, delivery.Blockedf("take secrets: out of its trainer.yaml, or train on the server's own machine",
			"the trainer needs %s, and a training on EC2 gets no secrets: they would be in S3 or in the instance's "+
				"user data", strings.Join(slices.Sorted(maps.Keys(req.Secrets)), ", "))
	}
	if q == nil {
		return EC2{}, delivery.Blockedf("let it start again with a go", "nobody has agreed to what it costs")
	}
	if n := len(next.Earlier); n >= a.Tries {
		if err := durable.WriteJSON(filepath.Join(req.Dir, heldFile), hold{next.Number - 1}); err != nil {
			return EC2{}, err
		}
		return EC2{}, delivery.Blockedf(remedy(next.Earlier[n-1], *q), "%s, %d times; the checkpoint is kept",
			reasons[next.Earlier[n-1]], n)
	}
	minutes, err := lasts(req, next)
	if err != nil {
		return EC2{}, err
	}
	run := filepath.Base(req.Dir)
	v := EC2{Run: run, Name: delivery.ThingName(a.Controller, run), Attempt: next.Number, Home: a.Home,
		Controller: a.Controller, Owner: owner(q.By), Pull: "none",
		Expires: now.Add(time.Duration(minutes) * time.Minute).UTC().Format(time.RFC3339), Minutes: minutes,
		Silence: int(a.Silence / time.Minute), Account: a.ID, Region: a.Region, Partition: a.Partition, VPC: a.VPC,
		Subnet: a.Subnet, PublicAddress: a.PublicAddress, InstanceType: q.Instance, AMI: a.AMI, AMIOwner: a.AMIOwner,
		AMIName: a.AMIName, DiskGB: a.DiskGB, Bucket: a.Runs, Inputs: a.Prefix + run + "/input/",
		Outputs: a.Prefix + run + "/output/", PermissionsBoundary: a.PermissionsBoundary,
		ScheduleGroup: a.ScheduleGroup}
	if q.Pull > 0 {
		v.Pull = strconv.Itoa(q.Pull)
	}
	if v.Spot = q.Spot && !(q.OnDemand && scarce(next.Earlier)); v.Spot {
		v.MaxPrice = fmt.Sprintf("%d.%05d", q.PerHour/delivery.Dollar, q.PerHour%delivery.Dollar/10)
	}
	if req.Container != nil {
		v.Image = req.Container.Image
		name, _, _ := strings.Cut(v.Image, "@")
		v.ImageRepository = a.Repositories[name]
	}
	return v, nil
}

// scarce reports whether spot instances have shown to be hard to get or to keep.
func scarce(earlier []Lost) bool {
	interruptions := 0
	for _, why := range earlier {
		if why == LostCapacity {
			return true
		}
		if why == LostSpot {
			interruptions++
		}
	}
	return interruptions > 1
}

// lasts returns how many minutes an attempt may last: the rest of the limit with a margin, and never past what the
// ceiling pays for.
func lasts(req trainer.Request, next Next) (int, error) {
	q := req.Quote
	left := longest * time.Minute
	if req.Limit > 0 {
		left = min(left, req.Limit-next.Spent+margin)
	}
	if q.PerHour > 0 {
		pays := time.Duration(float64(q.Ceiling-q.PerHour.For(next.Spent)) / float64(q.PerHour) * float64(time.Hour))
		if left = min(left, pays); pays < shortest {
			return 0, delivery.Blockedf("raise train.machine.maxCost, or train less; the checkpoint is kept",
				"what is left of %s pays for no instance at %s an hour", q.Ceiling, q.PerHour)
		}
	}
	return max(5, int(left/time.Minute)), nil
}

var notInOwner = regexp.MustCompile(`[^A-Za-z0-9._@+-]`)

// owner returns a name as a tag may have it.
func owner(by string) string {
	by = strings.TrimLeft(notInOwner.ReplaceAllString(by, "-"), "._@+-")
	if by == "" {
		return "nobody"
	}
	return by[:min(len(by), 128)]
}

// reasons say why attempts were lost.
var reasons = map[Lost]string{
	LostSpot:     "the spot instance was taken away",
	LostCapacity: "AWS has no such instance to give",
	LostBoot:     "the instance did not get as far as the trainer",
	LostSilent:   "nothing was heard of the trainer any more",
	LostEnded:    "the instance was ended",
}

// remedy says what a person can do about an attempt that was lost again and again.
func remedy(why Lost, q delivery.Quote) string {
	switch {
	case (why == LostSpot || why == LostCapacity) && q.Spot && !q.OnDemand:
		return "set train.machine.spot to prefer or never, or let it go on later: aob pr recheck NUMBER"
	case why == LostCapacity:
		return "choose another train.machine.instance, or let it go on later: aob pr recheck NUMBER"
	}
	return "read trainer.log and boot.log of the last attempt, then let it go on: aob pr recheck NUMBER"
}

// Errors of EC2 that mean that there is no instance now, and those that a person must do something about.
var (
	noCapacity = regexp.MustCompile(`\b(InsufficientInstanceCapacity|InsufficientHostCapacity|SpotMaxPriceTooLow|` +
		`MaxSpotInstanceCountExceeded|InsufficientCapacity|UnfulfillableCapacity)\b`)
	noQuota = regexp.MustCompile(`\b(VcpuLimitExceeded|InstanceLimitExceeded)\b`)
	quota   = regexp.MustCompile(`\blimit[\s│]+of[\s│]+([1-9]\d*)\b`) // more than none: others may use it up
)

// refusals are the answers of AWS that no later attempt changes, with what a person can do.
var refusals = []struct {
	text *regexp.Regexp // of the error
	do   string
}{
	{regexp.MustCompile(`\bUnsupported: (Your requested|The requested)`), "name a subnet of another zone under " +
		"aws.train in the server's configuration, or choose another train.machine.instance"},
	{regexp.MustCompile(`\b(PendingVerification|Blocked):`),
		"AWS has to verify the account: it writes a mail about it"},
	{regexp.MustCompile(`\b(UnauthorizedOperation|AccessDenied|ServiceLinkedRoleCreationNotPermitted)\b`),
		"give the server's role this permission; aob doctor --aws lists what is missing"},
	{regexp.MustCompile(`\b(InvalidSubnetID\.NotFound|InvalidVpcID\.NotFound|InvalidAMIID\.\w+|OptInRequired|` +
		`InvalidBlockDeviceMapping|query returned no results)\b`), "correct aws.train in the server's configuration; " +
		"aob doctor --aws checks it"},
}

const (
	firstWait = time.Minute      // after the first lack of capacity; it doubles
	quotaWait = 10 * time.Minute // for others of the account to end, as another training
)

// explainApply returns the error of a plan or an apply for people. before is how many attempts were lost before it.
func explainApply(err error, v EC2, before int) error {
	var step stepError
	text := err.Error()
	if errors.As(err, &step) {
		text = step.err.Error()
	}
	switch code := noCapacity.FindString(text); {
	case code == "SpotMaxPriceTooLow":
		return lostError{LostCapacity, delivery.Wait{For: firstWait << min(before, 10), What: fmt.Sprintf(
			"no spot instance %s is to be had in %s for at most $%s an hour", v.InstanceType, v.Region, v.MaxPrice)}}
	case code != "":
		return lostError{LostCapacity, delivery.Wait{For: firstWait << min(before, 10), What: fmt.Sprintf(
			"AWS has no %s to give in %s at the moment (%s)", v.InstanceType, v.Region, code)}}
	}
	if code := noQuota.FindString(text); code != "" {
		if most := quota.FindStringSubmatch(text); most != nil {
			return delivery.Wait{For: quotaWait, What: fmt.Sprintf("the account may run no %s beside what it runs "+
				"(%s, at most %s): it waits, or ask AWS for more: Service Quotas, Amazon EC2, in region %s",
				v.InstanceType, code, most[1], v.Region)}
		}
		return delivery.Blockedf("ask AWS for more: Service Quotas, Amazon EC2, in region "+v.Region,
			"the account may run no further %s (%s)", v.InstanceType, code)
	}
	for _, r := range refusals {
		if r.text.MatchString(text) {
			return delivery.Blockedf(r.do+", then let it go on: aob pr recheck NUMBER", "%s",
				delivery.PlainText(err.Error(), 500))
		}
	}
	return err
}

// ofAttempt reads the values that an attempt was launched with. They are written before Terraform makes anything.
func (m *AWS) ofAttempt(attempt string) (v EC2, err error) {
	return v, durable.ReadJSON(filepath.Join(attempt, stackFolder, varsFile), &v)
}

// Alive implements [Machine].
func (m *AWS) Alive(ctx context.Context, attempt string) (bool, error) {
	v, err := m.ofAttempt(attempt)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := m.exit(ctx, v); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	i, err := m.instance(ctx, v)
	if err != nil {
		return false, err
	}
	if i == nil {
		return m.mayAppear(attempt)
	}
	return i.Costs() || i.State == shuttingDown, nil
}

// shuttingDown is the state of an instance that still has some seconds.
const shuttingDown = "shutting-down"

// mayAppear reports whether the instance of an attempt was made so shortly before that no list may have it yet.
func (m *AWS) mayAppear(attempt string) (bool, error) {
	applied, err := readMoment(filepath.Join(attempt, appliedFile))
	return !applied.IsZero() && time.Since(applied) < appearing, err
}

// instance returns the instance of an attempt; nil if the account does not list one.
func (m *AWS) instance(ctx context.Context, v EC2) (*delivery.Thing, error) {
	things, err := m.Things.OfRun(ctx, v.Region, v.Controller, v.Run)
	if err != nil {
		return nil, err
	}
	var found *delivery.Thing
	for _, t := range things {
		if t.Kind == delivery.OrphanInstance && t.Name == v.name() && (found == nil || t.Costs()) {
			found = &t
		}
	}
	return found, nil
}

// Stop implements [Machine]. It needs no state of Terraform.
func (m *AWS) Stop(ctx context.Context, attempt string) error {
	v, err := m.ofAttempt(attempt)
	if errors.Is(err, os.ErrNotExist) || err == nil && copied(attempt) {
		return nil // nothing was made, or it is the original's
	}
	if err != nil {
		return err
	}
	return m.end(ctx, v)
}

// end ends everything with the tags of a run, until the account says several times that there is nothing.
func (m *AWS) end(ctx context.Context, v EC2) error {
	began, gone := time.Now(), 0
	for {
		things, err := m.Things.OfRun(ctx, v.Region, v.Controller, v.Run)
		var failed []error
		left := err != nil
		for _, t := range things {
			if t.Costs() {
				left = true
				failed = append(failed, m.Things.EndThing(ctx, v.Region, t))
			}
			late := t.Kind == delivery.OrphanInstance && t.State == shuttingDown && time.Since(began) < ending
			left = left || late // it may still write its output
		}
		failed = append(failed, err)
		if gone++; left {
			gone = 0
		}
		if gone >= lists {
			// A security group can be deleted when the last of the instance is gone.
			err := errors.Join(m.Things.EndSchedule(ctx, v.Region, v.Controller, v.ScheduleGroup, v.schedule()),
				m.Things.EndRest(ctx, v.Region, v.Controller, v.Run, v.name()))
			if err == nil {
				return nil
			}
			failed = append(failed, err)
		}
		if _, blocked := errors.AsType[delivery.Blocked](errors.Join(failed...)); blocked {
			return errors.Join(failed...)
		}
		select {
		case <-time.After(min(m.Pace().Every, 5*time.Second)):
		case <-ctx.Done():
			return errors.Join(append(failed, fmt.Errorf("the account still has something of run %s: %w", v.Run,
				context.Cause(ctx)))...)
		}
	}
}
