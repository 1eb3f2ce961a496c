package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// The trainings of the story, each of a few seconds to half a minute on two
// cores. The first ends long before it is good, so that the second is better by
// many standard errors of 72 images, whatever machine trains them; what a
// stranger proposes lies between the two; and the bad one learns next to nothing.
var (
	undertrained = model(2, "1e-3")
	better       = model(10, "2e-3")
	bad          = model(1, "1e-6")
	between      = model(5, "2e-3")
)

func model(epochs int, lr string) map[string]string {
	return map[string]string{"models/bccd.yaml": fmt.Sprintf(`apiVersion: aob/v1
kind: Model
name: bccd
dataset: {dir: bccd}
classes: [RBC, WBC, Platelets]
train:
  with: tiny@1
  resolution: 192
  epochs: %d
  batch: {effective: 8, step: 8}
  optimizer: {name: adamw, lr: %s, warmup: 1, schedule: cosine}
  seeds: [1]
  machine: {limit: 30m}
`, epochs, lr)}
}

const production = `apiVersion: aob/v1
kind: Gate
name: production
covers: [bccd]
owners: [ada]
evaluate: {dataset: {dir: bccd}, split: test}
classes: [RBC, WBC, Platelets]
checks:
  - {metric: mAP, min: 0.05}
  - {metric: AP, classes: [RBC, WBC], min: 0.05, support: 20, unsure: fail}
  - {metric: mAP, maxDrop: 0.02, against: release, confidence: 95%, unsure: fail}
  - {metric: size, max: 20MB}
`

const lab = `apiVersion: aob/v1
kind: Fleet
name: lab
runs: bccd
match: {site: lab}
waves: [1, 100%]
soak: 2s
advance: all-healthy
`

const releaseFile = "models/bccd.release.yaml"

// TestGitea is AOB's main job on real data with a real forge: a model is
// trained, judged and released to three devices, made better, made worse, rolled
// back, and proposed by a stranger. Its subtests are one story, in order.
func TestGitea(t *testing.T) {
	files := model(8, "2e-3")
	files["README.md"], files["gates/production.yaml"], files["fleets/lab.yaml"] = "# What our devices run\n",
		production, lab
	m := newTeam(t, files)
	m.startServer(t)
	for _, device := range []string{"bench-1", "bench-2", "bench-3"} {
		m.startAgent(t, device, "lab", "site=lab")
	}
	s := &story{team: m, maintainer: m.clone(t, m.ada, m.repo), developer: m.clone(t, m.ben, m.repo)}
	type chapter struct {
		name string
		tell func(*testing.T)
	}
	chapters := []chapter{
		{"nothing of ours", s.nothingOfOurs},
		{"forged webhook", s.forgedWebhook},
		{"first model", s.firstModel},
		{"better model", s.betterModel},
		{"worse model", s.worseModel},
		{"revert", s.revert},
		{"fork", s.fork},
		{"known content", s.knownContent},
		{"thresholds", s.thresholds},
		{"corrected labels", s.correctedLabels},
		{"what people see", s.whatPeopleSee},
		{"end", s.end},
	}
	for _, chapter := range chapters {
		began := time.Now()
		if !t.Run(chapter.name, chapter.tell) {
			t.FailNow() // the rest of the story builds on it
		}
		t.Logf("%s: %s", chapter.name, round(time.Since(began)))
	}
}

// A story is what its chapters leave to each other.
type story struct {
	*team
	maintainer, developer clone  // working copies of Ada and Ben
	pulls                 []int  // all pull requests
	better                string // main's merge of the better model
	adopted               int    // the pull request of a stranger's commits
}

// propose pushes a branch and opens a pull request of it.
func (s *story) propose(t *testing.T, c clone, branch, title string, files map[string]string) (number int,
	commit string) {
	t.Helper()
	commit = c.push(t, branch, title, files)
	number = s.open(t, c.who, branch, commit, title)
	s.pulls = append(s.pulls, number)
	return number, commit
}

// A pull request that changes no model is green at once. Pushing to it shows how
// quick the first status is.
func (s *story) nothingOfOurs(t *testing.T) {
	number, _ := s.propose(t, s.developer, "words", "README: say whom to ask",
		map[string]string{"README.md": "# What our devices run\nAsk Ada.\n"})
	_, statuses := s.settled(t, number, "success")
	if got := statuses[delivery.ContextRelease].Description; !strings.Contains(got, "no model change") {
		t.Errorf("aob/release says %q", got)
	}
	s.commented(t, number, "no model change")

	const pushes = 7
	var whole, after []time.Duration
	before := s.metrics(t)
	for i := range pushes {
		commit := s.developer.commit(t, "README: say it again",
			map[string]string{"README.md": strings.Repeat("Ask Ada.\n", i+2)})
		began := time.Now()
		s.developer.git(t, "push", "-q", "origin", "words")
		pushed := time.Since(began)
		s.firstStatus(t, commit)
		whole, after = append(whole, round(time.Since(began))), append(after, round(time.Since(began)-pushed))
	}
	t.Logf("until the first status is in the forge's API: from the end of git push, median %s of %v; from its "+
		"beginning, median %s of %v",
		median(after), after, median(whole), whole)
	if n := s.metrics(t)[webhooksTaken] - before[webhooksTaken]; n < pushes {
		t.Errorf("%v webhooks were taken for %d pushes", n, pushes)
	}
	s.settled(t, number, "success")
	s.merge(t, number)
	if c := s.costs(t); c != (costs{}) {
		t.Errorf("nothing of ours had costs: %+v", c)
	}
}

const (
	webhooksTaken    = `aob_webhooks_total{result="taken"}`
	webhooksUnsigned = `aob_webhooks_total{result="unsigned"}`
)

// A webhook that is not signed with the secret is refused, and counted.
func (s *story) forgedWebhook(t *testing.T) {
	before := s.metrics(t)[webhooksUnsigned]
	for i, signature := range []string{"", "sha256=00", strings.Repeat("0", 64)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.address+"/webhook",
			strings.NewReader(`{"ref": "refs/heads/main"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Gitea-Event", "push")
		if signature != "" {
			req.Header.Set("X-Gitea-Signature", signature)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("signature %q: %s", signature, resp.Status)
		}
		if n := s.metrics(t)[webhooksUnsigned] - before; n != float64(i+1) {
			t.Errorf("%v webhooks are counted as unsigned, want %d", n, i+1)
		}
	}
}

var epoch = regexp.MustCompile(`^pending: epoch \d+/2`)

// A first model, deliberately undertrained, goes all the way.
func (s *story) firstModel(t *testing.T) {
	number, commit := s.propose(t, s.developer, "first", "bccd: a first model", undertrained)
	s.refused(t, number)
	until(t, func() error {
		told := s.said(t, commit, delivery.ContextTrain)
		if !slices.ContainsFunc(told, epoch.MatchString) {
			return fmt.Errorf("aob/train tells of no progress: %q", told)
		}
		return nil
	})
	s.keepsSecrets(t)
	head, statuses := s.settled(t, number, "success")
	t.Logf("aob/train told:\n    %s", strings.Join(s.said(t, commit, delivery.ContextTrain), "\n    "))
	for _, context := range []string{delivery.ContextIntent, delivery.ContextData, delivery.ContextTrain,
		delivery.ContextEval, delivery.ContextGate + "production"} {
		if statuses[context].State != "success" {
			t.Errorf("%s is %+v", context, statuses[context])
		}
	}
	s.developer.git(t, "fetch", "-q")
	if author, parent := s.developer.git(t, "log", "-1", "--format=%an %P", head), delivery.CommitName+" "+
		commit; author != parent {
		t.Errorf("the release commit is by %q, want %q", author, parent)
	}
	if changed := s.developer.git(t, "diff", "--name-only", commit, head); changed != releaseFile {
		t.Errorf("the release commit changes %q", changed)
	}
	t.Logf("%s:\n%s", releaseFile, s.developer.git(t, "show", head+":"+releaseFile))
	s.commented(t, number, "ready to merge")

	s.merge(t, number)
	began := time.Now()
	s.rolledOut(t, 1)
	t.Logf("%s after the merge all devices are healthy on version 1", round(time.Since(began)))
}

// keepsSecrets checks that no program but the server has a secret in its
// environment: least of all what trains.
func (s *story) keepsSecrets(t *testing.T) {
	t.Helper()
	looked := 0
	for pid, line := range belonging(s.dir) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || pid == s.serve.cmd.Process.Pid {
			continue
		}
		looked++
		if bytes.Contains(data, []byte(s.robot.Token)) || bytes.Contains(data, []byte(s.secret)) {
			t.Errorf("a secret is in the environment of %s", line)
		}
	}
	if looked == 0 {
		t.Error("nothing runs besides the server")
	}
}

// A better model: the release file's figures move in the diff, and the fleet
// takes it one device first.
func (s *story) betterModel(t *testing.T) {
	number, _ := s.propose(t, s.developer, "better", "bccd: train longer", better)
	head, _ := s.settled(t, number, "success")
	gain, deviation := s.gain(t, number)
	t.Logf("the gain is %.4f mAP, %.1f standard errors", gain, gain/deviation)
	if gain < 4*deviation {
		t.Error("a gain of less than four standard errors hangs on luck")
	}
	s.developer.git(t, "fetch", "-q")
	t.Logf("what the reviewer sees:\n%s", s.developer.git(t, "diff", "-U0", "origin/main..."+head, "--", releaseFile))
	s.commented(t, number, "ready to merge")

	s.better = s.merge(t, number)
	began := time.Now()
	s.rolledOut(t, 2)
	t.Logf("%s after the merge all devices are healthy on version 2", round(time.Since(began)))
	if steps := s.published(t, 2); len(steps) != 2 || !strings.Contains(steps[0], " 1 of 3 devices") ||
		!strings.Contains(steps[1], " 3 of 3 devices") {
		t.Errorf("not one device first, and then all: %q", steps)
	}
}

// gain is how much better a pull request's model is than the release, and the
// standard error of that.
func (s *story) gain(t *testing.T, number int) (gain, deviation float64) {
	t.Helper()
	var pr web.PR
	if err := s.ask(t, &pr, "pr", "show", fmt.Sprint(number)); err != nil {
		t.Fatal(err)
	}
	for _, c := range pr.Models[0].Verdicts[0].Checks {
		if c.Metric == "mAP" && c.Diff != nil && c.Low != nil {
			return *c.Diff, (*c.Diff - *c.Low) / 1.645 // the bound is one-sided at 95 %
		}
	}
	t.Fatalf("#%d is compared with no release: %+v", number, pr.Models)
	return 0, 0
}

// published lists what the server has told the fleet of a version, by its log.
func (s *story) published(t *testing.T, version int) []string {
	t.Helper()
	data, err := os.ReadFile(s.serve.log)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(string(data)) {
		var said struct{ Msg, Step string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "step" &&
			strings.Contains(said.Step, fmt.Sprintf("fleet lab: bccd version %d ", version)) {
			steps = append(steps, said.Step)
		}
	}
	return steps
}

// A model made worse is refused by its gate, not merged by the forge, and ships
// nowhere.
func (s *story) worseModel(t *testing.T) {
	number, commit := s.propose(t, s.developer, "worse", "bccd: a much lower learning rate", bad)
	head, statuses := s.settled(t, number, "failure")
	if head != commit {
		t.Errorf("something was committed to a failing pull request: %.10s", head)
	}
	if got := statuses[delivery.ContextGate+"production"]; got.State != "failure" {
		t.Errorf("the gate says %+v", got)
	}
	s.refused(t, number)
	s.commented(t, number, "not to be merged")
	s.looked(t)
	s.rolledOut(t, 2)
}

// git revert takes the fleet back, for nothing.
func (s *story) revert(t *testing.T) {
	before := s.costs(t)
	s.maintainer.git(t, "fetch", "-q")
	s.maintainer.git(t, "checkout", "-q", "-B", "main", "origin/main")
	s.maintainer.git(t, "revert", "--no-edit", "-m", "1", s.better)
	commit := s.maintainer.git(t, "rev-parse", "HEAD")
	began := time.Now()
	s.maintainer.git(t, "push", "-q", "origin", "main")
	pushed := time.Since(began)
	until(t, func() error { return s.serving(1) })
	took := time.Since(began)
	s.rolledOut(t, 1)
	after := s.costs(t)
	t.Logf("%s after git push began, %s after it ended, all devices serve version 1", round(took), round(took-pushed))
	t.Logf("%v trainings, %v bytes of model served, %v bytes of model downloaded",
		after.trainings-before.trainings, after.served-before.served, after.downloaded-before.downloaded)
	if after.trainings != before.trainings || after.served != before.served || after.downloaded != before.downloaded {
		t.Errorf("the way back was not free: before %+v, after %+v", before, after)
	}
	until(t, func() error {
		statuses := s.gitea.Statuses(t, s.repo, commit)
		if statuses[delivery.ContextRelease].State != "success" ||
			statuses[delivery.ContextRollout+"lab"].State != "success" {
			return fmt.Errorf("main's commit says:%s", words(statuses))
		}
		t.Logf("main, %.10s:%s", commit, words(statuses))
		return nil
	})
}

var waitsForGo = regexp.MustCompile(`/aob run ([0-9a-f]+)`)

// A stranger's pull request costs nothing until somebody who may write says so, by a
// reaction to AOB's question.
func (s *story) fork(t *testing.T) {
	before := s.costs(t)
	theirs := s.clone(t, s.eve, s.gitea.Fork(t, s.eve, s.repo))
	const title = "bccd: train a little longer"
	commit := theirs.push(t, "longer", title, between)
	number := s.open(t, s.eve, "eve:longer", commit, title)
	s.pulls = append(s.pulls, number)
	var asks []string
	until(t, func() error {
		_, statuses := s.await(t, number, delivery.ContextRelease, "pending")
		if asks = waitsForGo.FindStringSubmatch(statuses[delivery.ContextRelease].Description); asks == nil {
			return fmt.Errorf("nobody is asked for a go:%s", words(statuses))
		}
		return nil
	})
	s.commented(t, number, asks[0])

	s.gitea.PostComment(t, s.eve, s.repo, number, asks[0])
	s.edited(t, number, "I will look at it.", asks[0])
	asked := s.asked(t, number, asks[1])
	s.agree(t, s.eve, asked)
	s.looked(t)
	if after := s.costs(t); after != before {
		t.Errorf("nobody who may has said go: before %+v, after %+v", before, after)
	}
	s.refused(t, number)

	s.agree(t, s.ada, asked)
	head, statuses := s.settled(t, number, "failure")
	if head != commit {
		t.Errorf("%.10s was pushed to a fork", head)
	}
	if got := statuses[delivery.ContextGate+"production"]; got.State != "success" {
		t.Errorf("the gate says %+v", got)
	}
	adopt := fmt.Sprintf("aob pr adopt %d", number)
	if got := statuses[delivery.ContextRelease].Description; !strings.Contains(got, adopt) {
		t.Errorf("aob/release does not say %q: %q", adopt, got)
	}
	s.commented(t, number, adopt)

	judged := s.costs(t)
	var made struct{ Number int }
	if err := s.ask(t, &made, "pr", "adopt", fmt.Sprint(number)); err != nil {
		t.Fatal(err)
	}
	s.adopted = made.Number
	s.pulls = append(s.pulls, made.Number)
	// Until the release is committed to it, its head is the fork's, with the word
	// of the fork's pull request on it.
	until(t, func() error {
		if s.pull(t, made.Number).Head.SHA == commit {
			return fmt.Errorf("nothing was committed to #%d", made.Number)
		}
		return nil
	})
	s.settled(t, made.Number, "success")
	if after := s.costs(t); after.runs != judged.runs {
		t.Errorf("adopting started %v runs", after.runs-judged.runs)
	}
}

// edited makes a comment of Ada's and changes its text, a second later at least:
// the forge knows no shorter time.
func (s *story) edited(t *testing.T, number int, from, to string) {
	t.Helper()
	said := s.gitea.PostComment(t, s.ada, s.repo, number, from)
	for i := 0; ; i++ {
		var now giteatest.Comment
		s.call(t, s.ada, "PATCH", fmt.Sprintf("/issues/comments/%d", said.ID), map[string]string{"body": from +
			strings.Repeat(".", i%9)}, &now)
		if now.Updated.After(now.Created) {
			break
		}
	}
	s.call(t, s.ada, "PATCH", fmt.Sprintf("/issues/comments/%d", said.ID), map[string]string{"body": to}, nil)
}

// answered logs how long it takes until the forge shows that contexts succeed.
func (s *story) answered(t *testing.T, number int, what string, began time.Time, contexts ...string) {
	t.Helper()
	for _, context := range contexts {
		s.await(t, number, context, "success")
		t.Logf("%s: %s from the beginning of git push to the success of %s", what, round(time.Since(began)), context)
	}
}

// The same content on another branch is green without a single run.
func (s *story) knownContent(t *testing.T) {
	before := s.costs(t)
	began := time.Now()
	number, _ := s.propose(t, s.developer, "again", "bccd: as Eve proposes", between)
	s.answered(t, number, "known content", began, delivery.ContextRelease)
	s.settled(t, number, "success")
	if after := s.costs(t); after.runs != before.runs {
		t.Errorf("%v runs were started for known content", after.runs-before.runs)
	}

	s.merge(t, s.adopted)
	s.rolledOut(t, 3)
}

// inferred counts the stored detections: what a model has been run for.
func (s *story) inferred(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "state", "detections", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// A pull request that changes thresholds alone is judged without training and
// without running a model.
func (s *story) thresholds(t *testing.T) {
	before, inferred := s.costs(t), s.inferred(t)
	s.maintainer.git(t, "fetch", "-q")
	text := s.maintainer.git(t, "show", "origin/main:models/bccd.yaml") +
		"\nthresholds: {default: bestF1, RBC: {precision: 0.8}}\n"
	began := time.Now()
	number, _ := s.propose(t, s.developer, "thresholds", "bccd: thresholds",
		map[string]string{"models/bccd.yaml": text})
	s.answered(t, number, "other thresholds", began, delivery.ContextGate+"production", delivery.ContextRelease)
	s.settled(t, number, "success")
	if after := s.costs(t); after.trainings != before.trainings || s.inferred(t) != inferred {
		t.Errorf("it cost %v trainings and %d inferences", after.trainings-before.trainings, s.inferred(t)-inferred)
	}
	s.commented(t, number, "thresholds, found on the validation split")
	s.merge(t, number)
	s.rolledOut(t, 4)
}

// An eval set with corrected labels scores again what is stored.
func (s *story) correctedLabels(t *testing.T) {
	test := filepath.Join(s.gold(), "test")
	if err := os.CopyFS(test, os.DirFS(filepath.Join(s.bccd, "test"))); err != nil {
		t.Fatal(err)
	}
	annotations := filepath.Join(test, "_annotations.coco.json")
	data, err := os.ReadFile(annotations)
	if err != nil {
		t.Fatal(err)
	}
	var labels map[string]any
	if err := json.Unmarshal(data, &labels); err != nil {
		t.Fatal(err)
	}
	list := labels["annotations"].([]any)
	labels["annotations"] = list[:len(list)-3] // three that were none
	if data, err = json.Marshal(labels); err == nil {
		err = os.WriteFile(annotations, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, inferred := s.costs(t), s.inferred(t)
	began := time.Now()
	number, _ := s.propose(t, s.developer, "labels", "gate: corrected labels", map[string]string{
		"gates/production.yaml": strings.Replace(production, "evaluate: {dataset: {dir: bccd}",
			"evaluate: {dataset: {dir: gold}", 1)})
	s.answered(t, number, "corrected labels", began, delivery.ContextRelease)
	s.settled(t, number, "success")
	if after := s.costs(t); after.trainings != before.trainings || after.runs == before.runs ||
		s.inferred(t) != inferred {
		t.Errorf("it cost %v trainings, %v runs and %d inferences", after.trainings-before.trainings,
			after.runs-before.runs, s.inferred(t)-inferred)
	}
	s.commented(t, number, "Current releases, judged by the changed gates")
	s.commented(t, number, "What gate production can detect for bccd")
}

// What people can ask afterwards.
func (s *story) whatPeopleSee(t *testing.T) {
	counted := s.metrics(t)
	looks := counted[forgeLooks]
	t.Logf("%v looks at the forge, of %s each; %v looks at git, of %s each", looks,
		round(time.Duration(counted[strings.Replace(forgeLooks, "_count", "_sum", 1)]/looks*float64(time.Second))),
		counted["aob_git_observe_seconds_count"],
		round(time.Duration(counted["aob_git_observe_seconds_sum"]/counted["aob_git_observe_seconds_count"]*float64(
			time.Second))))
	for _, args := range [][]string{{"status"}, {"pr", "list"}, {"explain", "model", "bccd"},
		{"explain", "device", "bench-1"}, {"explain", "commit", s.better}} {
		out, err := s.aob(t, args...)
		if err != nil {
			t.Error(err)
		}
		t.Logf("aob %s\n%s", strings.Join(args, " "), out)
	}
	images, err := filepath.Glob(filepath.Join(s.bccd, "test", "*.jpg"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images: %v", err)
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		t.Fatal(err)
	}
	for device := range s.agents {
		found, err := edge.Infer(t.Context(), s.device(device), image)
		if err != nil || len(found.Boxes) == 0 {
			t.Errorf("%s finds %d cells on %s: %v", device, len(found.Boxes), filepath.Base(images[0]), err)
		}
	}
	for _, number := range s.pulls {
		if n := len(s.comments(t, number)); n != 1 {
			t.Errorf("aob has made %d comments on #%d", n, number)
		}
	}
}

// In the end nothing is left running, and no secret lies anywhere.
func (s *story) end(t *testing.T) {
	for _, agent := range s.agents {
		if err := agent.end(); err != nil {
			t.Error(err)
		}
	}
	if err := s.serve.end(); err != nil {
		t.Error(err)
	}
	until(t, func() error {
		if left := belonging(s.dir); len(left) > 0 {
			return fmt.Errorf("still running: %v", left)
		}
		return nil
	})
	for what, secret := range map[string]string{"the forge's token": s.robot.Token, "the webhook's secret": s.secret} {
		for _, folder := range []string{s.dir, s.logs} {
			if files := holds(t, folder, secret); len(files) > 0 {
				t.Errorf("%s is in %v", what, files)
			}
		}
	}
}
