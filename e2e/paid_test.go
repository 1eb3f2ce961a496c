package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A shop is a team on a real Gitea whose server may start instances, in an account that is moto.
type shop struct {
	*team
	account        *account
	mal            giteatest.User // a writer who edits what others say
	writer, reader clone          // ben's, and eve's fork
	opened         int
}

// paidFiles is a model that trains on an instance, with more keys of its machine, and its gate.
func paidFiles(epochs int, more string) map[string]string {
	return map[string]string{"models/cells.yaml": fmt.Sprintf(`apiVersion: aob/v1
kind: Model
name: cells
dataset: {dir: shapes}
classes: [red, blue]
train:
  with: tiny@1
  resolution: 128
  epochs: %d
  batch: {effective: 2}
  args: {channels: 4}
  machine: {terraform: train-aws-ec2, instance: g5.xlarge, spot: prefer, limit: 2h%s}
`, epochs, more), "gates/cells.yaml": paidGate("cells", "150MB")}
}

func paidGate(name, size string) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: %s\ncovers: [cells]\nclasses: [red, blue]\n"+
		"evaluate: {dataset: {dir: shapes}, split: test}\nchecks:\n  - {metric: size, max: %s}\n", name, size)
}

// with is a copy of files in which a text of the model is another one.
func with(files map[string]string, old, new string) map[string]string {
	files["models/cells.yaml"] = strings.Replace(files["models/cells.yaml"], old, new, 1)
	return files
}

// A paidRow is something that may not start an instance, and what the forge then says of it.
type paidRow struct {
	name    string
	do      func(s *shop, t *testing.T) (number int)
	context string // of the status
	state   string
	says    []string // what its description has
	comment string   // what AOB's comment on the pull request has besides
}

// asks is the description of a training that waits for a go at a price with a ceiling.
func asks(ceiling string) []string {
	return []string{"trains on g5.xlarge spot for at most ", "never more than " + ceiling + " ",
		"needs approval: somebody w"}
}

const (
	goComment = "cells trains on g5.xlarge spot for at most "

	train   = delivery.ContextTrain
	aIntent = delivery.ContextIntent
)

var paidRows = []paidRow{
	{"an unapproved push", func(s *shop, t *testing.T) int { return s.offer(t, paidFiles(8, "")) },
		train, "pending", asks("$3"), goComment},
	{"a fork of a stranger", func(s *shop, t *testing.T) int { return s.forked(t, paidFiles(8, "")) },
		train, "pending", asks("$3"), goComment},
	{"a go of a fork's author", func(s *shop, t *testing.T) int {
		number := s.forked(t, paidFiles(32, ""))
		s.gitea.PostComment(t, s.eve, s.repo, number, "/aob run "+s.code(t, number))
		s.looked(t)
		if asked := s.questions(t, number); len(asked) > 0 {
			t.Errorf("the author of a fork made AOB ask: %v", asked)
		}
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a fork whose author pushes something else after the go", func(s *shop, t *testing.T) int {
		return s.late(t, s.forked(t, paidFiles(33, "")), s.reader, paidFiles(34, ""))
	}, train, "pending", asks("$3"), goComment},
	{"a fork whose author agrees to AOB's question", func(s *shop, t *testing.T) int {
		number := s.forked(t, paidFiles(35, ""))
		s.agree(t, s.eve, s.told(t, number))
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a go of a stranger", func(s *shop, t *testing.T) int {
		number := s.offer(t, paidFiles(10, ""))
		s.gitea.PostComment(t, s.eve, s.repo, number, "/aob run "+s.code(t, number))
		s.looked(t)
		if asked := s.questions(t, number); len(asked) > 0 {
			t.Errorf("a stranger made AOB ask: %v", asked)
		}
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a reaction of a stranger to AOB's question", func(s *shop, t *testing.T) int {
		number := s.offer(t, paidFiles(11, ""))
		s.agree(t, s.eve, s.told(t, number))
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a comment that is edited into a go", func(s *shop, t *testing.T) int {
		number := s.offer(t, paidFiles(12, ""))
		said := s.gitea.PostComment(t, s.ada, s.repo, number, "Looks good, and is expensive.")
		edit := map[string]string{"body": "/aob run " + s.code(t, number)}
		if err := s.gitea.Call(s.mal, "PATCH", s.comment(said), edit, nil); err != nil {
			t.Fatal(err)
		}
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a question of AOB's that is edited before it is agreed to", func(s *shop, t *testing.T) int {
		number := s.offer(t, paidFiles(13, ""))
		asked := s.told(t, number)
		edit := map[string]string{"body": asked.Body + "\nLunch?"}
		if err := s.gitea.Call(s.mal, "PATCH", s.comment(asked), edit, nil); err != nil {
			t.Fatal(err)
		}
		s.agree(t, s.ada, asked)
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a go in another pull request", func(s *shop, t *testing.T) int {
		code := s.code(t, s.offer(t, paidFiles(14, "")))
		number := s.offer(t, paidFiles(15, ""))
		s.gitea.PostComment(t, s.ada, s.repo, number, "/aob run "+code)
		return number
	}, train, "pending", asks("$3"), goComment},
	{"a go for another run key", func(s *shop, t *testing.T) int {
		return s.late(t, s.offer(t, paidFiles(16, "")), s.writer, paidFiles(17, ""))
	}, train, "pending", asks("$3"), goComment},
	{"a go for a lower ceiling", func(s *shop, t *testing.T) int {
		return s.late(t, s.offer(t, paidFiles(18, ", maxCost: $2")), s.writer, paidFiles(18, ", maxCost: $40"))
	}, train, "pending", asks("$40"), goComment},
	{"a go before a gate is changed", func(s *shop, t *testing.T) int {
		return s.late(t, s.offer(t, paidFiles(19, "")), s.writer,
			map[string]string{"gates/cells.yaml": paidGate("cells", "900MB")})
	}, train, "pending", asks("$3"), goComment},
	{"a go before the trainer is changed", func(s *shop, t *testing.T) int {
		return s.late(t, s.offer(t, paidFiles(20, "")), s.writer, with(paidFiles(20, ""), "tiny@1", "tiny@9"))
	}, aIntent, "failure", []string{`train.with: unknown trainer "tiny@9"`}, ""},
	{"a trainer and a module in the pull request", func(s *shop, t *testing.T) int {
		files := paidFiles(21, "")
		files["trainers/tiny/train.py"] = "raise SystemExit('mine')\n"
		files["infra/terraform/train-aws-ec2/main.tf"] = "resource \"aws_instance\" \"mine\" {}\n"
		return s.offer(t, files)
	}, train, "pending", asks("$3"), goComment},
	{"a trainer and a module alone", func(s *shop, t *testing.T) int {
		return s.offer(t, map[string]string{"trainers/tiny/train.py": "raise SystemExit('mine')\n",
			"infra/terraform/train-aws-ec2/main.tf": "resource \"aws_instance\" \"mine\" {}\n"})
	}, delivery.ContextRelease, "success", []string{"no model change"}, ""},
	{"a trainer and a module among models", func(s *shop, t *testing.T) int {
		return s.offer(t, map[string]string{"models/train.py": "raise SystemExit('mine')\n",
			"models/main.tf": "resource \"aws_instance\" \"mine\" {}\n"})
	}, aIntent, "failure", []string{"models/main.tf", "is not read"}, ""},
	{"a dataset at an address", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(22, ""), "dir: shapes", `dir: "http://169.254.169.254/latest"`))
	}, aIntent, "failure", []string{"models/cells.yaml:4", "must be a name, not an address"}, ""},
	{"a dataset at a path", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(23, ""), "dir: shapes", "dir: ../../../root/.aws"))
	}, aIntent, "failure", []string{"models/cells.yaml:4", "must not contain . or .."}, ""},
	{"a dataset in a bucket that the server does not name", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(24, ""), "dir: shapes", "s3: acme-states/cells"))
	}, aIntent, "failure", []string{`dataset.s3: unknown dataset "acme-states"`}, ""},
	{"a tracking server at an address", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(25, ""), "train:\n", "track: {mlflow: \"http://169.254.169.254/\"}\ntrain:\n"))
	}, aIntent, "failure", []string{"models/cells.yaml:6", "want a name of letters, digits and ._-"}, ""},
	{"a tracking server that the server does not name", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(26, ""), "train:\n", "track: {mlflow: theirs}\ntrain:\n"))
	}, aIntent, "success", []string{"not copied to a tracker", "no tracker mlflow/theirs"}, goComment},
	{"a price above the ceiling", func(s *shop, t *testing.T) int {
		return s.offer(t, paidFiles(27, ", maxCost: $0.01"))
	}, train, "failure", []string{"its training costs at least $", "at most $0.01 are allowed"}, ""},
	{"an instance that the server does not start", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(28, ""), "g5.xlarge", "p5.48xlarge"))
	}, train, "pending", []string{"this server starts g5.xlarge or x9.metal, not p5.48xlarge"}, ""},
	{"an instance without a price", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(29, ""), "g5.xlarge", "x9.metal"))
	}, train, "pending", []string{"what x9.metal costs is not known, so nothing starts"}, ""},
	{"an instance with more than a name", func(s *shop, t *testing.T) int {
		return s.offer(t, with(paidFiles(30, ""), "g5.xlarge", `"g5.xlarge\"} resource"`))
	}, aIntent, "failure", []string{"want a type of instance of AWS"}, ""},
	{"a training for more than a day may cost", func(s *shop, t *testing.T) int {
		return s.offer(t, paidFiles(31, ", maxCost: $52"))
	}, train, "pending", []string{"waits until ", "of this day's $50 are spent or agreed"}, ""},
	{"a training for more than a month may cost", func(s *shop, t *testing.T) int {
		return s.offer(t, paidFiles(31, ", maxCost: $60"))
	}, train, "pending", []string{"waits until ", "of this month's $55 are spent or agreed"}, ""},
}

// Whoever is not entitled to it, and whatever a pull request has in it, starts no call to AWS that makes or changes
// anything, and the forge says why. One go, for what was asked, then starts one instance, so that the rows fail for
// their reasons alone; a push of other content ends it.
func TestNothingStartsUnpaid(t *testing.T) {
	if os.Getenv("AOB_AWS") == "" {
		t.Skip("takes minutes: make test-aws runs it")
	}
	s := openShop(t)
	for _, row := range paidRows {
		t.Run(row.name, func(t *testing.T) { s.refuses(t, row) })
	}
	if t.Failed() {
		return
	}
	t.Run("a go for what was asked", s.starts)
}

func openShop(t *testing.T) *shop {
	t.Helper()
	n := findPrograms(t)
	s := &shop{account: newAccount(t)}
	s.account.front.Instances = nil // they boot, and say nothing
	s.team = newTeamWith(t, n, map[string]string{"README.md": "# What our devices run\n"})
	s.mal = s.gitea.User(t, "mal")
	s.gitea.Allow(t, s.repo, s.mal, "write")
	s.writer = s.clone(t, s.ben, s.repo)
	s.reader = s.clone(t, s.eve, s.gitea.Fork(t, s.eve, s.repo))
	writeFiles(t, filepath.Join(s.dir, "shapes"), colors(t))
	interpreter := environmentIn(t, filepath.Join(s.dir, "environment"))
	s.env = s.account.env()
	s.startServerWith(t, func() string {
		return fmt.Sprintf(`repository: %s
forge: {gitea: {url: "%s", repo: %s, tokenEnv: %s, webhookSecretEnv: %s}}
state: state
listen: {address: "%s", metrics: "%s"}
datasets: {dir: {shapes: %s}}
poll: {git: 1s, forge: 1s}
detector: {binary: %s, library: %s}
terraform: %s
python: %s
`, s.repo.CloneURL, s.gitea.URL, s.repo.Owner+"/"+s.repo.Name, tokenVariable, secretVariable, s.address, s.counters,
			filepath.Join(s.dir, "shapes"), filepath.Join(s.bin, "aob-detect"), s.library, s.terraform,
			interpreter) + strings.Replace(s.account.configuration(), "  train:",
			"  instances: [g5.xlarge, x9.metal]\n  day: $50\n  month: $55\n  train:", 1)
	})
	return s
}

// offer opens a pull request of ben's.
func (s *shop) offer(t *testing.T, files map[string]string) int {
	t.Helper()
	s.opened++
	branch := fmt.Sprintf("offer-%d", s.opened)
	commit := s.writer.push(t, branch, "cells: "+branch, files)
	return s.gitea.PullRequest(t, s.ben, s.repo, branch, "main", "cells: "+commit[:10])
}

// forked opens a pull request of eve's, from her fork.
func (s *shop) forked(t *testing.T, files map[string]string) int {
	t.Helper()
	s.opened++
	branch := fmt.Sprintf("fork-%d", s.opened)
	commit := s.reader.push(t, branch, "cells: "+branch, files)
	return s.gitea.PullRequest(t, s.eve, s.repo, "eve:"+branch, "main", "cells: "+commit[:10])
}

// code waits until a pull request says which go it needs.
func (s *shop) code(t *testing.T, number int) (code string) {
	t.Helper()
	until(t, func() error {
		asked := waitsForGo.FindStringSubmatch(s.mainComment(t, number))
		if asked == nil {
			return fmt.Errorf("#%d asks for no go:%s", number, words(s.now(t, number)))
		}
		code = asked[1]
		return nil
	})
	return code
}

func (s *shop) now(t *testing.T, number int) map[string]giteatest.Status {
	return s.gitea.Statuses(t, s.repo, s.pull(t, number).Head.SHA)
}

// told has ada give the go that a pull request asks for, and returns the question by which AOB makes sure.
func (s *shop) told(t *testing.T, number int) giteatest.Comment {
	t.Helper()
	code := s.code(t, number)
	s.gitea.PostComment(t, s.ada, s.repo, number, "/aob run "+code)
	return s.asked(t, number, code)
}

func (s *shop) comment(c giteatest.Comment) string {
	return fmt.Sprintf("/repos/%s/%s/issues/comments/%d", s.repo.Owner, s.repo.Name, c.ID)
}

// late pushes something else to a pull request between the go and its confirmation.
func (s *shop) late(t *testing.T, number int, by clone, then map[string]string) int {
	t.Helper()
	asked := s.told(t, number)
	by.commit(t, "cells: something else", then)
	by.git(t, "push", "-q")
	s.looked(t)
	s.agree(t, s.ada, asked)
	return number
}

// changes are the calls to the account that make or change something.
func (s *shop) changes() (list []string) {
	for _, name := range s.account.front.Calls() {
		if !slices.ContainsFunc([]string{"Describe", "Get", "List", "Simulate", "GET ", "HEAD ",
			"AWSPriceListService."}, func(reads string) bool { return strings.HasPrefix(name, reads) }) {
			list = append(list, name)
		}
	}
	return list
}

func (s *shop) refuses(t *testing.T, row paidRow) {
	number := row.do(s, t)
	s.looked(t)
	var got giteatest.Status
	until(t, func() error {
		if err := s.serve.alive(); err != nil {
			return fatal{err}
		}
		statuses := s.now(t, number)
		got = statuses[row.context]
		for _, want := range row.says {
			if got.State != row.state || !strings.Contains(got.Description, want) {
				return fmt.Errorf("%s is not %s with %q:%s", row.context, row.state, want, words(statuses))
			}
		}
		if said := s.mainComment(t, number); !strings.Contains(said, row.comment) {
			return fmt.Errorf("the comment does not say %q: %s", row.comment, said)
		}
		return nil
	})
	t.Logf("#%d: %s %s: %s", number, got.State, row.context, got.Description)
	s.looked(t)
	if release := s.now(t, number)[delivery.ContextRelease]; release.State == "success" && row.state != "success" {
		t.Errorf("aob/release is green: %s", release.Description)
	}
	if made := s.changes(); len(made) > 0 {
		t.Fatalf("calls to the account: %v", made)
	}
	if n := s.metrics(t)["aob_trainings_total"]; n > 0 {
		t.Fatalf("%v trainings were started", n)
	}
	s.call(t, s.ben, "PATCH", fmt.Sprintf("/pulls/%d", number), map[string]string{"state": "closed"}, nil)
}

func (s *shop) starts(t *testing.T) {
	number := s.offer(t, paidFiles(8, ""))
	s.agree(t, s.ada, s.told(t, number))
	until(t, func() error {
		if got := s.now(t, number)[train]; got.State == "failure" || got.State == "error" {
			return fatal{errors.New(got.Description)}
		}
		if n := s.account.front.Count("RunInstances"); n != 1 {
			return fmt.Errorf("%d instances were run:%s", n, words(s.now(t, number)))
		}
		return nil
	})
	s.writer.commit(t, "cells: nothing", map[string]string{"models/cells.yaml": "", "README.md": "# Ours\n"})
	s.writer.git(t, "rm", "-q", "models/cells.yaml", "gates/cells.yaml")
	s.writer.git(t, "commit", "-q", "-m", "cells: no model")
	s.writer.git(t, "push", "-q")
	until(t, func() error {
		status, err := s.status(t)
		if err == nil && len(status.Runs) > 0 {
			err = fmt.Errorf("a run that nobody needs goes on: %+v", status.Runs)
		}
		return err
	})
	s.account.none(t)
	if n := s.account.front.Count("RunInstances"); n != 1 {
		t.Errorf("%d instances were run", n)
	}
}
