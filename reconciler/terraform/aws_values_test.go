package terraform

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
)

func TestValuesOfAnAttempt(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	m := &AWS{Account: Account{Controller: "acme", ID: "123456789012", Region: "eu-central-1", Runs: "acme-runs"}}
	ask := func() trainer.Request {
		return trainer.Request{Dir: t.TempDir() + "/train-1", Limit: 2 * time.Hour, Quote: &delivery.Quote{By: "ada",
			Pull: 7, Instance: "g5.xlarge", Spot: true, PerHour: delivery.Dollars(1.006),
			Ceiling: 12 * delivery.Dollar}}
	}
	tests := []struct {
		name   string
		change func(*trainer.Request, *Next)
		want   func(EC2) string // "" where it is as wanted
		err    string
	}{
		{"plain", nil, func(v EC2) string {
			if v.Expires != "2026-11-30T14:20:00Z" || v.Minutes != 140 || v.MaxPrice != "1.00600" || !v.Spot ||
				v.Pull != "7" || v.Inputs != "acme/train-1/input/" || v.Silence != 15 || v.Home != "/opt/aob" {
				return "something"
			}
			return ""
		}, ""},
		{"never past what the ceiling pays for", func(r *trainer.Request, n *Next) {
			r.Quote.Ceiling, n.Spent = 2*delivery.Dollar, time.Hour
		}, func(v EC2) string { // 0.994 dollars are left
			if v.Minutes != 59 || v.Expires != "2026-11-30T12:59:00Z" {
				return v.Expires
			}
			return ""
		}, ""},
		{"what was spent counts for the limit", func(r *trainer.Request, n *Next) { n.Spent = 90 * time.Minute },
			func(v EC2) string {
				if v.Minutes != 50 {
					return fmt.Sprint(v.Minutes)
				}
				return ""
			}, ""},
		{"the ceiling is used up", func(r *trainer.Request, n *Next) { n.Spent = 12 * time.Hour }, nil,
			"what is left of $12 pays for no instance at $1.01 an hour"},
		{"secrets", func(r *trainer.Request, n *Next) {
			r.Secrets = map[string]string{"WANDB_API_KEY": "s3cr3t", "HF_TOKEN": "hf"}
		}, nil, "the trainer needs HF_TOKEN, WANDB_API_KEY, and a training on EC2 gets no secrets"},
		{"no quote", func(r *trainer.Request, n *Next) { r.Quote = nil }, nil, "nobody has agreed to what it costs"},
		{"an owner that no tag may have", func(r *trainer.Request, n *Next) { r.Quote.By = "-@Ada Lovelace'; x" },
			func(v EC2) string {
				if v.Owner != "Ada-Lovelace---x" {
					return v.Owner
				}
				return ""
			}, ""},
		{"taken away twice, on demand allowed", func(r *trainer.Request, n *Next) {
			r.Quote.OnDemand, n.Earlier = true, []Lost{LostSpot, LostSpot}
		}, func(v EC2) string {
			if v.Spot || v.MaxPrice != "" {
				return "spot"
			}
			return ""
		}, ""},
		{"taken away twice, spot only", func(r *trainer.Request, n *Next) { n.Earlier = []Lost{LostSpot, LostSpot} },
			func(v EC2) string {
				if !v.Spot {
					return "on demand"
				}
				return ""
			}, ""},
		{"no capacity, on demand allowed", func(r *trainer.Request, n *Next) {
			r.Quote.OnDemand, n.Earlier = true, []Lost{LostCapacity}
		}, func(v EC2) string {
			if v.Spot {
				return "spot"
			}
			return ""
		}, ""},
		{"taken away again and again", func(r *trainer.Request, n *Next) {
			n.Number, n.Earlier = 6, []Lost{LostSpot, LostSpot, LostBoot, LostSpot, LostSpot}
		}, nil, "the spot instance was taken away, 5 times; the checkpoint is kept"},
		{"an image", func(r *trainer.Request, n *Next) {
			r.Container = &trainer.Container{Image: "registry.example/rfdetr@sha256:0123"}
		}, func(v EC2) string { return strings.TrimPrefix(v.Image, "registry.example/rfdetr@sha256:0123") }, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req, next := ask(), Next{Number: 1}
			if test.change != nil {
				test.change(&req, &next)
			}
			if err := mkdir(req.Dir); err != nil {
				t.Fatal(err)
			}
			v, err := m.values(req, next, now)
			if test.err != "" {
				blocked, is := errors.AsType[delivery.Blocked](err)
				if !is || !strings.Contains(blocked.What, test.err) {
					t.Fatalf("%v, want %q", err, test.err)
				}
				if strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("the error has a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if bad := test.want(v); bad != "" {
				t.Errorf("%s in %+v", bad, v)
			}
		})
	}
}

func TestErrorsOfAnApply(t *testing.T) {
	v := EC2{InstanceType: "g5.xlarge", Region: "eu-central-1", MaxPrice: "0.60000"}
	const again = ", then let it go on: aob pr recheck NUMBER"
	for text, want := range map[string]string{
		"operation error EC2: RunInstances, api error InsufficientInstanceCapacity: We currently do not have": "AWS " +
			"has no g5.xlarge to give in eu-central-1 at the moment (InsufficientInstanceCapacity); again in 2m0s",
		"api error SpotMaxPriceTooLow: Your Spot request price of 0.6 is lower": "no spot instance g5.xlarge is to " +
			"be had in eu-central-1 for at most $0.60000 an hour; again in 2m0s",
		"api error VcpuLimitExceeded: You have requested more vCPU capacity": "the account may run no further " +
			"g5.xlarge (VcpuLimitExceeded); ask AWS for more: Service Quotas, Amazon EC2, in region eu-central-1",
		"VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 0 allows": "the " +
			"account may run no further g5.xlarge (VcpuLimitExceeded); ask AWS for more: Service Quotas, Amazon EC2, " +
			"in region eu-central-1",
		"VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit\n│ of 4 allows": "the " +
			"account may run no g5.xlarge beside what it runs (VcpuLimitExceeded, at most 4): it waits, or ask AWS " +
			"for more: Service Quotas, Amazon EC2, in region eu-central-1; again in 10m0s",
		"api error UnauthorizedOperation: not authorized": "api error UnauthorizedOperation: not authorized; give " +
			"the server's role this permission; aob doctor --aws lists what is missing" + again,
		"Unsupported: Your requested instance type (g5.xlarge) is not supported": "Unsupported: Your requested " +
			"instance type (g5.xlarge) is not supported; name a subnet of another zone under aws.train in the " +
			"server's configuration, or choose another train.machine.instance" + again,
		"PendingVerification: Your request is being validated": "PendingVerification: Your request is being " +
			"validated; AWS has to verify the account: it writes a mail about it" + again,
		"Your query returned no results": "Your query returned no results; correct aws.train in the server's " +
			"configuration; aob doctor --aws checks it" + again,
		"api error InternalError: An internal error has occurred": "api error InternalError: An internal error has " +
			"occurred",
	} {
		if got := explainApply(errors.New(text), v, 1).Error(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// run.json names paths of the instance, and each input has one of its own.
func TestPlacesOnAnInstance(t *testing.T) {
	req := trainer.Request{Dir: "/s/runs/train-1", Inputs: []string{"/s/runs/data-1/prepared", "/w/nano.pth",
		"/v/nano.pth"}}
	to := place(req, "/opt/aob")
	for from, want := range map[string]string{"/s/runs/train-1/output": "/opt/aob/output",
		"/s/runs/data-1/prepared": "/opt/aob/data/0/prepared", "/w/nano.pth": "/opt/aob/data/1/nano.pth",
		"/v/nano.pth": "/opt/aob/data/2/nano.pth"} {
		if got := to(from); got != want {
			t.Errorf("%s is at %s, want %s", from, got, want)
		}
	}
}

// An end that boot.sh tells of is what it says, and nothing worse.
func TestHowAnAttemptEnded(t *testing.T) {
	for text, want := range map[exited]Lost{
		{143, exitedSpot}:                       LostSpot,
		{143, exitedKilled}:                     LostEnded,
		{1, "the inputs could not be fetched"}:  LostBoot,
		{1, "the instance could not be set up"}: LostBoot,
		{125, exitedItself}:                     LostBoot,
		{0, exitedItself}:                       "",
		{3, exitedItself}:                       "",
		{137, exitedItself}:                     "",
	} {
		lost, _ := errors.AsType[lostError](text.explain(t.TempDir()))
		if lost.why != want {
			t.Errorf("%+v is %q, want %q", text, lost.why, want)
		}
	}
}
