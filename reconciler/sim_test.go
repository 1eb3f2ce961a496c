package reconciler

// A small world for the loop: a repository, a forge, runs, evidence and a fleet
// that live in memory and obey the same interfaces as the real ones. Stories and
// the property test play in it; nothing in it waits for anything. What must
// never happen is checked where it would: see sim_rules_test.go.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/view"
)

// A sim is one world.
type sim struct {
	fail     func(format string, args ...any) // does not return
	helper   func()
	now      time.Time
	repo     *simRepo
	forge    *simForge
	runs     *simRuns
	signed   *simEvidence
	fleet    *simFleet
	ledger   *simLedger
	loop     *Reconciler
	server   plan.Server
	poll     time.Duration                       // between two looks at the forge
	trained  map[delivery.Digest]int             // by run key: how often it was trained to completion
	learned  map[delivery.Digest]delivery.Digest // run keys, by what a trainer gets
	inferred map[delivery.Digest]bool            // by detect key: whose detections are stored
	tried    []plan.Variant                      // that were asked for as experiments
	quality  map[int]float64                     // by epochs: the mAP that a model of so many epochs reaches
	loses    map[string]float64                  // by variant: the mAP that it loses
	speed    map[string]float64                  // by variant: how many times as fast as FP32 it is

	requests *view.Requests

	large    bool            // a world of real parts, whose statuses are not checked: growth_world_test.go
	copy     *sim            // a server in a copy of the state folder; nil for none
	watching bool            // this is one
	did      map[string]bool // mutations that happened

	memory  plan.Memory
	planned time.Time // when the world was observed whose plan was checked last

	effects int       // what the loop did to the world so far
	crashIn int       // begins and ends of effects until the process is killed; 0 is never
	again   time.Time // when the loop wants its next turn
	failed  error     // of the last turn
}

func newSim(t testing.TB) *sim {
	s := newSimFailing(t.Fatalf)
	s.helper = t.Helper
	return s
}

func newSimFailing(fail func(format string, args ...any)) *sim {
	s := &sim{fail: fail, helper: func() {}, poll: time.Second, now: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC),
		trained: map[delivery.Digest]int{}, learned: map[delivery.Digest]delivery.Digest{},
		inferred: map[delivery.Digest]bool{},
		quality:  map[int]float64{1: 0.10, 2: 0.40, 8: 0.60, 14: 0.70, 20: 0.72},
		loses:    map[string]float64{"int8": 0.01}, speed: map[string]float64{"fp16": 1.02, "int8": 1.6},
		server: plan.Server{Trainers: tiny(delivery.Sum([]byte("tiny"))),
			Protocol: delivery.Sum([]byte("protocol")),
			Numerics: "sim/1", NextPoll: delivery.Duration(time.Second), Expiry: delivery.Duration(24 * time.Hour),
			Deadline: delivery.Duration(time.Hour)}}
	s.repo = &simRepo{sim: s, commits: map[string]simCommit{}, refs: map[string]string{}, blobs: map[string][]byte{},
		looked: new(sync.Mutex)}
	s.forge = &simForge{sim: s, statuses: map[string]map[string]delivery.Check{}, comments: map[int]string{},
		permission: map[string]delivery.Permission{}, prs: map[int]*simPR{}, ready: map[int]bool{}}
	s.runs = &simRuns{sim: s, states: map[delivery.Digest]*delivery.RunState{}}
	s.signed = newSimEvidence(s)
	s.fleet = &simFleet{sim: s, published: map[string]delivery.Desired{}, broken: map[delivery.Digest]bool{}}
	s.ledger = newSimLedger(s)
	s.restart()
	return s
}

// parsed is shared by all worlds: what a file says depends on nothing else.
var parsed = intent.NewCache(intent.Options{Trainers: builtIn})

// builtIn are the trainers in the repository. The tiny one makes all variants here.
var builtIn = func() intent.Trainers {
	list, err := intent.LoadTrainers(os.DirFS("../trainers"))
	if err != nil {
		panic(err)
	}
	t := list["tiny@1"]
	t.Variants = []string{"fp16", "int8"}
	list["tiny@1"] = t
	return list
}()

// tiny is the built-in trainer with other files.
func tiny(files delivery.Digest) map[string]delivery.Trainer {
	t := builtIn["tiny@1"].Trainer
	t.Files = files
	return map[string]delivery.Trainer{"tiny@1": t}
}

// restart is what a crash of aob serve leaves: everything but the loop's memory. The new loop may be changed before it
// begins.
func (s *sim) restart(changes ...func(*Reconciler)) {
	s.forgetTrials()
	s.loop = &Reconciler{Repo: s.repo, Forge: s.forge, Runs: s.runs, Evidence: s.signed, Fleet: s.fleet,
		Ledger: s.ledger, Requests: s.requests,
		Metrics: noMetrics{}, Parser: parsed, Main: "main", GitPoll: time.Second, Poll: s.poll,
		Server: s.server, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }}
	for _, change := range changes {
		change(s.loop)
	}
	s.loop.Init()
	s.repo.last = ""
	s.fleet.listening = s.now
}

// useForge has the loop use another forge from now on.
func (r *Reconciler) useForge(f Forge) { r.Forge, r.answers.API, r.board.API = f, f, f }

// forgetTrials has experiments read from the ledger again.
func (s *sim) forgetTrials() {
	s.requests = view.NewRequests(s.ledger, slog.New(slog.DiscardHandler))
	if s.loop != nil {
		s.loop.Requests = s.requests
	}
}

// source answers the commands.
func (s *sim) source() *view.Source {
	return &view.Source{Loop: s.loop, Requests: s.requests, Fleet: s.fleet, Parser: parsed, Main: "main",
		Now: func() time.Time { return s.now }}
}

// killed is what the process dies of in the middle of a turn.
type killed struct{}

// turn takes one turn, a second later. A process that is killed in it is started
// again.
func (s *sim) turn() {
	s.now = s.now.Add(time.Second)
	defer func() {
		switch r := recover().(type) {
		case nil:
		case killed:
			s.crashIn = 0
			s.restart()
		default:
			panic(r)
		}
	}()
	ctx := context.Background()
	s.loop.look(ctx)
	s.again, s.failed = s.loop.Reconcile(ctx)
	s.checkPlan()
	s.checkHeard()
	s.loop.send(ctx)
}

// send sends all that waits in the queues.
func (r *Reconciler) send(ctx context.Context) {
	r.board.Drain(ctx)
	r.pushes.Drain(ctx)
	r.outbox.Drain(ctx)
}

// wake does what a webhook, and Run after it, do.
func (s *sim) wake() {
	s.loop.Refresh("")
	s.loop.Wake()
}

// effect is called around everything that the loop does to the world. The
// process may die before it is done, or after.
func (s *sim) effect() (done func()) {
	if s.watching {
		s.fail("a server in a copy of the state folder does something to the world")
	}
	s.effects++
	s.mayDie()
	return s.mayDie
}

// happens remembers that a mutation happened.
func (s *sim) happens(what string) {
	if s.did == nil {
		s.did = map[string]bool{}
	}
	s.did[what] = true
}

func (s *sim) mayDie() {
	if s.crashIn > 0 {
		if s.crashIn--; s.crashIn == 0 {
			panic(killed{})
		}
	}
}

// settle turns until nothing moves: runs finish, devices report.
func (s *sim) settle() {
	s.helper()
	still := 0
	for range 1000 {
		before := fmt.Sprint(s.effects, s.repo.refs, s.fleet.reported)
		s.turn()
		s.runs.finishAll()
		s.fleet.report()
		if fmt.Sprint(s.effects, s.repo.refs, s.fleet.reported) != before || s.runs.active() > 0 {
			still = 0
			continue
		}
		if still++; still == 12 { // pauses after errors double, and go by one by one
			return
		}
		// Soaks and pauses after errors go by at once.
		for _, due := range []time.Time{s.loop.turn.Due(), s.loop.answers.Again()} {
			if due.After(s.now) && due.Sub(s.now) < 20*time.Minute {
				s.now = due
			}
		}
	}
	s.fail("the loop does not settle; the last plan:\n%s\nposts %d, last error %v", s.loop.observed.plan, s.forge.posts,
		s.failed)
}

// quiet fails unless a settled loop rests: nothing is done any more, and the next turn waits for something to happen.
// Comments and reactions are read once with each list of pull requests, and all other answers last for a minute.
func (s *sim) quiet() {
	s.helper()
	const turns = 20 // a turn is a second
	effects := s.effects
	clear(s.forge.asked)
	for range turns {
		s.turn()
		if !s.again.After(s.now) {
			s.fail("a settled loop wants its next turn at once; the last plan:\n%s", s.loop.observed.plan)
		}
	}
	if s.effects != effects {
		s.fail("a settled loop did %d things more; the last plan:\n%s", s.effects-effects, s.loop.observed.plan)
	}
	lists := turns/int(s.poll/time.Second) + 1
	for question, n := range s.forge.asked {
		most := 1
		if slices.Contains([]string{"list", "comments", "reactions"}, strings.Fields(question)[0]) {
			most = lists
		}
		if n > most {
			s.fail("a settled loop asked the forge %d times in %d turns, want at most %d: %s", n, turns, most, question)
		}
	}
}

type noMetrics struct{}

func (noMetrics) Turn(time.Duration, int, error)         {}
func (noMetrics) Phase(string, time.Duration)            {}
func (noMetrics) Computed(string, int)                   {}
func (noMetrics) ForgeCall(string, time.Duration, error) {}
func (noMetrics) Step(string, error)                     {}
func (noMetrics) GitObserve(time.Duration)               {}
func (noMetrics) RunStarted(delivery.RunKind)            {}

func (noMetrics) TrackerCall(string, time.Duration, error) {}
func (noMetrics) TrackerWaiting(string, int)               {}

// ---- git

type simCommit struct {
	parents []string
	files   map[string]string // path to blob
	when    time.Time
	number  int // the order in which commits were made
}

type simRepo struct {
	looked  *sync.Mutex // of observed and fetched, which the reader beside the loop sets
	sim     *sim
	commits map[string]simCommit
	refs    map[string]string
	blobs   map[string][]byte
	last    string
	fetched int                               // commits that there were when the loop last read the repository
	made    map[string]bool                   // commits that AOB made
	entries map[string][]delivery.Quarantined // of quarantine files, by blob
	down    bool
	bad     map[string]error // commits whose tree cannot be read, blobs, and files whose history cannot
	reads   int              // of such trees
	refuses error            // what pushes end with
	cost    time.Duration    // that reading a tree or a file takes

	observed map[string]string
	keep     []int // the pull requests that the loop said are open
}

func hash(v any) string { return delivery.DigestOf("git", v).Hex()[:40] }

func (r *simRepo) write(parents []string, files map[string]string, when time.Time, message string) string {
	id := hash([]any{parents, files, when, message})
	if _, ok := r.commits[id]; !ok {
		r.commits[id] = simCommit{parents, files, when, len(r.commits)}
	}
	return id
}

// with returns a commit's files with some of them changed; "" removes one.
func (r *simRepo) with(from string, files map[string]string) map[string]string {
	next := maps.Clone(r.commits[from].files)
	if next == nil {
		next = map[string]string{}
	}
	for path, content := range files {
		if content == "" {
			delete(next, path)
			continue
		}
		b := hash(content)
		r.blobs[b] = []byte(content)
		next[path] = b
	}
	return next
}

// commit changes files on a branch; "" removes one.
func (r *simRepo) commit(branch, from string, when time.Time, files map[string]string) string {
	var parents []string
	if from != "" {
		parents = []string{from}
	}
	id := r.write(parents, r.with(from, files), when, "change")
	r.refs[git.Branch+branch] = id
	return id
}

// read returns a file of a commit; "" where it is not there.
func (r *simRepo) read(commit, path string) string {
	return string(r.blobs[r.commits[commit].files[path]])
}

func (r *simRepo) Observe(context.Context) (map[string]string, bool, error) {
	if r.down {
		return nil, false, errors.New("git is down")
	}
	now := fmt.Sprint(r.refs)
	changed := now != r.last
	r.last = now
	observed := maps.Clone(r.refs)
	r.looked.Lock()
	r.observed, r.fetched = observed, len(r.commits)
	r.looked.Unlock()
	return observed, changed, nil
}

// Missing leaves it to the loop to say that main is gone.
func (r *simRepo) Missing(string) error { return nil }

// KeepPulls remembers which pull requests are said to be open.
func (r *simRepo) KeepPulls(open []int) { r.keep = open }

func (r *simRepo) Refs() map[string]string {
	r.looked.Lock()
	defer r.looked.Unlock()
	return r.observed
}

func (r *simRepo) At(_ context.Context, ref string) (string, error) {
	if r.down {
		return "", errors.New("git is down")
	}
	return r.refs[ref], nil
}

func (r *simRepo) FirstParents(commit string, limit int) ([]string, error) {
	var line []string
	for commit != "" && len(line) < limit {
		line = append(line, commit)
		if parents := r.commits[commit].parents; len(parents) > 0 {
			commit = parents[0]
		} else {
			commit = ""
		}
	}
	return line, nil
}

func (r *simRepo) Has(commit string) error {
	r.looked.Lock()
	fetched := r.fetched
	r.looked.Unlock()
	if c, ok := r.commits[commit]; !ok || c.number >= fetched && !r.made[commit] {
		return delivery.Wait{For: time.Second, What: "not here yet"}
	}
	return nil
}

func (r *simRepo) Files(commit string) ([]git.File, error) {
	if err := r.bad[commit]; err != nil {
		r.reads++
		return nil, err
	}
	if err := r.Has(commit); err != nil {
		return nil, err
	}
	if r.cost > 0 { // a loop that runs by itself reads the clock meanwhile
		r.sim.now = r.sim.now.Add(r.cost)
	}
	var files []git.File
	for path, b := range r.commits[commit].files {
		files = append(files, git.File{Path: path, Hash: b, Size: int64(len(r.blobs[b])), Mode: fs.FileMode(0o644)})
	}
	slices.SortFunc(files, func(a, b git.File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

func (r *simRepo) Blob(hash string, limit int64) ([]byte, error) {
	if r.cost > 0 { // a loop that runs by itself reads the clock meanwhile
		r.sim.now = r.sim.now.Add(r.cost)
	}
	if int64(len(r.blobs[hash])) > limit {
		return nil, git.ErrTooBig
	}
	return r.blobs[hash], r.bad[hash]
}

// ancestors lists a commit and its history, newest first, children before parents.
func (r *simRepo) ancestors(commit string) []string {
	seen := map[string]bool{"": true}
	var list []string
	queue := []string{commit}
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if !seen[c] {
			seen[c] = true
			list = append(list, c)
			queue = append(queue, r.commits[c].parents...)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return r.commits[b].number - r.commits[a].number })
	return list
}

func (r *simRepo) History(head, path string) ([]git.FileVersion, error) {
	if err := r.bad[path]; err != nil {
		return nil, err
	}
	var out []git.FileVersion
	line := map[string]bool{} // of first parents
	for c := head; c != ""; {
		line[c] = true
		if parents := r.commits[c].parents; len(parents) > 0 {
			c = parents[0]
		} else {
			c = ""
		}
	}
	for i, c := range r.ancestors(head) {
		parent := ""
		if p := r.commits[c].parents; len(p) > 0 {
			parent = p[0]
		}
		if now := r.commits[c].files[path]; now != r.commits[parent].files[path] {
			out = append(out, git.FileVersion{Commit: c, Parent: parent, Blob: now, Side: !line[c], Order: i})
		}
	}
	return out, nil
}

func (r *simRepo) Line(head, stop, folder string, limit int) ([]git.LineChange, bool, error) {
	var changes []git.LineChange
	for range limit {
		if head == stop {
			return changes, true, nil
		}
		c := r.commits[head]
		l := git.LineChange{Commit: head, Files: map[string]string{}}
		if len(c.parents) > 0 {
			l.Parent, l.Others = c.parents[0], c.parents[1:]
		}
		before := r.commits[l.Parent].files
		for _, files := range []map[string]string{before, c.files} {
			for path := range files {
				if name, ok := strings.CutPrefix(path, folder+"/"); ok && before[path] != c.files[path] {
					l.Files[name] = c.files[path]
				}
			}
		}
		if len(l.Files) > 0 {
			changes = append(changes, l)
		}
		if head = l.Parent; head == "" {
			break
		}
	}
	return changes, false, nil
}

func (r *simRepo) Ahead(head, branch string) (git.Ahead, error) {
	var ahead git.Ahead
	there := r.ancestors(branch)
	resolved := map[string]bool{}
	for _, commit := range slices.Backward(r.ancestors(head)) {
		c := r.commits[commit]
		if slices.Contains(there, commit) || len(c.parents) == 0 {
			continue
		}
		ahead.Merges = ahead.Merges || len(c.parents) > 1
		differs := map[string]bool{} // from a parent
		for _, parent := range c.parents {
			before := r.commits[parent].files
			for _, files := range []map[string]string{before, c.files} {
				for path := range files {
					differs[path] = differs[path] || before[path] != c.files[path]
				}
			}
		}
		maps.DeleteFunc(differs, func(_ string, yes bool) bool { return !yes })
		for _, path := range slices.Sorted(maps.Keys(differs)) {
			if len(c.parents) == 1 {
				ahead.Changes = append(ahead.Changes, git.FileChange{Path: path,
					From: r.commits[c.parents[0]].files[path], To: c.files[path]})
			} else if different(c.files[path], path, r, c.parents) {
				resolved[path] = true
			}
		}
	}
	ahead.Resolved = slices.Sorted(maps.Keys(resolved))
	return ahead, nil
}

// different reports whether a file is otherwise in each of some commits.
func different(blob, path string, r *simRepo, commits []string) bool {
	return !slices.ContainsFunc(commits, func(c string) bool { return r.commits[c].files[path] == blob })
}

// Moved returns nothing: the simulated repository holds intent files alone.
func (r *simRepo) Moved(_, _, _ string) ([]string, error) { return nil, nil }

func (r *simRepo) MergeBases(a, b string) ([]string, error) {
	of := r.ancestors(b)
	var bases []string
	behind := map[string]bool{} // a better one
	for _, c := range r.ancestors(a) {
		if slices.Contains(of, c) && !behind[c] {
			bases = append(bases, c)
			for _, older := range r.ancestors(c) {
				behind[older] = true
			}
		}
	}
	return slices.DeleteFunc(bases, func(c string) bool {
		return slices.ContainsFunc(bases, func(other string) bool {
			return other != c && slices.Contains(r.ancestors(other), c)
		})
	}), nil
}

// mergeBase returns the newest best common ancestor of two commits, or "".
func (r *simRepo) mergeBase(a, b string) string {
	bases, _ := r.MergeBases(a, b)
	if len(bases) == 0 {
		return ""
	}
	return bases[0]
}

func (r *simRepo) Commit(parents []string, files map[string][]byte, when time.Time, message string) (string, error) {
	text := map[string]string{}
	for path, data := range files {
		text[path] = string(data)
	}
	id := r.write(parents, r.with(parents[0], text), when, message)
	if r.made == nil {
		r.made = map[string]bool{}
	}
	r.made[id] = true
	return id, nil
}

func (r *simRepo) TreeHash(commit string) (string, error) { return hash(r.commits[commit].files), nil }

func (r *simRepo) Subject(string) (string, error) { return "", nil }

func (r *simRepo) Author(commit string) (string, string, time.Time, error) {
	return "dev", "dev@example.com", r.commits[commit].when, nil
}

func (r *simRepo) Push(_ context.Context, hash, ref, old string) error {
	defer r.sim.effect()()
	if r.down {
		return errors.New("git is down")
	}
	if r.refuses != nil {
		return r.refuses
	}
	if r.refs[ref] == hash {
		return nil
	}
	if r.refs[ref] != old {
		return git.ErrMoved
	}
	r.refs[ref] = hash
	return nil
}

// ---- forge

// A simPR is a pull request, open or closed. Its head is its branch's.
type simPR struct {
	delivery.PullRequest
	closed bool
}

type simForge struct {
	sim         *sim
	prs         map[int]*simPR
	statuses    map[string]map[string]delivery.Check
	comments    map[int]string
	commands    []simCommand
	ever        []simCommand // those that were deleted too
	reads       int          // of comments
	permission  map[string]delivery.Permission
	teams       map[string][]string // by user
	were        map[int][]string    // every commit that a pull request has been at, as listed
	ready       map[int]bool        // those that have ever been no draft
	down        bool
	busy        bool                   // answers 429
	old         []delivery.PullRequest // not nil: the API shows this, and not what is so by now
	nobodies    []string               // names of neither a user nor a team
	setup       delivery.Setup         // what is wrong with the settings
	posts       int
	asked       map[string]int                // by question: how often it was asked
	unvouched   bool                          // people may edit each other's comments, as on a real forge
	questions   map[int][]string              // that AOB asked in comments, by pull request
	consents    map[string][]delivery.Consent // by question
	made        int                           // comments made, not edited
	address     string
	said        int                       // statuses and comments that were sent
	mute        map[string]bool           // users of whom the forge does not say what they may do
	deaf        bool                      // takes no pull requests
	permissions int                       // that were asked for
	edited      map[int]bool              // pull requests on which somebody edited AOB's comment
	own         map[string]delivery.Check // by "COMMIT CONTEXT": what AOB set last
	forged      map[string]string         // by "COMMIT CONTEXT": the user who set a status that AOB did not set
}

type simCommand struct {
	pr int // 0 is every one
	delivery.Comment
	edited bool // by somebody else, and nobody vouches for it
}

// open opens a pull request of a branch, or opens its own again.
func (f *simForge) open(branch, author string) int {
	for n, p := range f.prs {
		if p.HeadRef == branch {
			p.closed = false
			return n
		}
	}
	n := len(f.prs) + 1
	f.ready[n] = true
	f.prs[n] = &simPR{PullRequest: delivery.PullRequest{Number: n, Title: branch, Author: author, HeadRef: branch,
		Base: "main", ForkOwner: author, Ref: fmt.Sprintf("%s%d/head", git.Pull, n)}}
	return n
}

// head returns a pull request's commit.
func (f *simForge) head(p *simPR) string {
	if p.Fork {
		return f.sim.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, p.Number)]
	}
	return f.sim.repo.refs[git.Branch+p.HeadRef]
}

// list returns the open pull requests.
func (f *simForge) list() []delivery.PullRequest {
	list := []delivery.PullRequest{}
	for _, n := range slices.Sorted(maps.Keys(f.prs)) {
		if p := f.prs[n]; !p.closed && f.head(p) != "" {
			pr := p.PullRequest
			pr.Head = f.head(p)
			if f.were == nil {
				f.were = map[int][]string{}
			}
			if !slices.Contains(f.were[n], pr.Head) {
				f.were[n] = append(f.were[n], pr.Head)
			}
			list = append(list, pr)
		}
	}
	return list
}

// heads returns the commits that a pull request is at and has been listed at.
func (f *simForge) heads(p *simPR) []string { return append([]string{f.head(p)}, f.were[p.Number]...) }

// ask counts a question, and answers with what is wrong with the forge.
func (f *simForge) ask(question string, about ...any) error {
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[fmt.Sprintln(append([]any{question}, about...)...)]++
	switch {
	case f.down:
		return errors.New("the forge is down")
	case f.busy:
		return delivery.Wait{For: 3 * time.Second, What: "the forge asks for time"}
	}
	return nil
}

func (f *simForge) PullRequests(context.Context) ([]delivery.PullRequest, error) {
	if err := f.ask("list"); err != nil {
		return nil, err
	}
	if f.old != nil {
		return slices.Clone(f.old), nil
	}
	return f.list(), nil
}

// Ended says how a pull request is now. Merged is what a test has set, or what git shows.
func (f *simForge) Ended(_ context.Context, pr delivery.PullRequest) (delivery.PullRequest, bool, error) {
	if err := f.ask("ended", pr.Number); err != nil {
		return pr, false, err
	}
	p, ok := f.prs[pr.Number]
	if !ok {
		return pr, true, nil
	}
	now := p.PullRequest
	now.Head = pr.Head
	now.Merged = now.Merged || slices.Contains(f.sim.repo.ancestors(f.sim.main()), pr.Head)
	return now, p.closed || f.head(p) == "", nil
}

func (f *simForge) SetStatus(_ context.Context, commit string, c delivery.Check) error {
	defer f.sim.effect()()
	if err := f.ask("set status", commit, c.Context); err != nil {
		return err
	}
	f.said++
	if f.own == nil {
		f.own = map[string]delivery.Check{}
	}
	f.own[commit+" "+c.Context] = c
	delete(f.forged, commit+" "+c.Context)
	if f.statuses[commit] == nil {
		f.statuses[commit] = map[string]delivery.Check{}
	}
	delete(f.forged, commit+" "+c.Context)
	if f.statuses[commit][c.Context] == c {
		return nil // at least once, and a repeat is identical
	}
	f.statuses[commit][c.Context] = c
	f.posts++
	if c.Context == delivery.ContextRelease && c.State == delivery.CheckSuccess {
		f.sim.checkGreen(commit)
	}
	return nil
}

func (f *simForge) Comment(_ context.Context, pr int, marker, body string) error {
	defer f.sim.effect()()
	if err := f.ask("comment", pr); err != nil {
		return err
	}
	f.said++
	delete(f.edited, pr)
	if marker != poll.Marker {
		f.sim.fail("a comment on #%d has the marker %q, so it would be a second one", pr, marker)
	}
	if _, ok := f.comments[pr]; !ok {
		f.made++
	}
	f.comments[pr] = body
	return nil
}

// forge sets a status as somebody else.
func (f *simForge) forge(commit, user string, c delivery.Check) {
	if f.forged == nil {
		f.forged = map[string]string{}
	}
	f.forged[commit+" "+c.Context] = user
	f.statuses[commit][c.Context] = c
}

func (f *simForge) Address() string { return f.address }

func (f *simForge) Statuses(_ context.Context, commit string) ([]delivery.Status, error) {
	if err := f.ask("statuses", commit); err != nil {
		return nil, err
	}
	var list []delivery.Status
	for _, context := range slices.Sorted(maps.Keys(f.statuses[commit])) {
		by := f.forged[commit+" "+context]
		st := delivery.Status{Check: f.statuses[commit][context], By: by, Mine: by == ""}
		if st.Check.Details != nil {
			st.Details = st.Check.Details.Digest()
		}
		list = append(list, st)
	}
	return list, nil
}

func (f *simForge) CommentBody(_ context.Context, pr int, _ string) (string, bool, error) {
	if err := f.ask("comment body", pr); err != nil {
		return "", false, err
	}
	body, ok := f.comments[pr]
	return body, ok, nil
}

func (f *simForge) Commands(_ context.Context, pr int) ([]delivery.Comment, error) {
	f.reads++
	if err := f.ask("comments", pr); err != nil {
		return nil, err
	}
	var list []delivery.Comment
	for _, c := range f.commands {
		if c.pr == 0 || c.pr == pr {
			if !f.unvouched && !c.edited {
				c.VerifiedBy = "in a world where nobody edits comments"
			}
			list = append(list, c.Comment)
		}
	}
	return list, nil
}

// Ask answers with those who have agreed to a question. Whether it stands as AOB
// wrote it is the adapter's to know.
func (f *simForge) Ask(_ context.Context, pr int, question string) ([]delivery.Consent, error) {
	if err := f.ask("reactions", pr, question); err != nil {
		return nil, err
	}
	if f.questions == nil {
		f.questions = map[int][]string{}
	}
	if !slices.Contains(f.questions[pr], question) {
		defer f.sim.effect()()
		f.questions[pr] = append(f.questions[pr], question)
	}
	return f.consents[question], nil
}

func (f *simForge) Check(context.Context) (delivery.Setup, error) { return f.setup, f.ask("settings") }

func (f *simForge) comment(pr int, author, body string) {
	c := simCommand{pr: pr, Comment: delivery.Comment{ID: int64(len(f.commands) + 1), Author: author, Body: body,
		At: f.sim.now}}
	f.commands, f.ever = append(f.commands, c), append(f.ever, c)
}

func (f *simForge) Permission(_ context.Context, user string) (delivery.Permission, error) {
	f.permissions++
	if f.mute[user] {
		return "", errors.New("the forge does not say")
	}
	if err := f.ask("permission", user); err != nil {
		return "", err
	}
	return f.may(user), nil
}

func (f *simForge) Teams(_ context.Context, user string) (map[string]bool, error) {
	in := map[string]bool{}
	for _, teams := range f.teams {
		for _, team := range teams {
			in[team] = slices.Contains(f.teams[user], team)
		}
	}
	return in, f.ask("teams", user)
}

func (f *simForge) Owner(_ context.Context, name string) (string, error) {
	if slices.Contains(f.nobodies, name) {
		return "no team of the repository and no user who may write here", f.ask("owner", name)
	}
	return "", f.ask("owner", name)
}

func (f *simForge) may(user string) delivery.Permission {
	if p, ok := f.permission[user]; ok {
		return p
	}
	return delivery.PermissionWrite
}

func (f *simForge) OpenPR(_ context.Context, head, _, title, _ string) (int, error) {
	defer f.sim.effect()()
	if err := f.ask("open", head); err != nil {
		return 0, err
	}
	if f.deaf {
		return 0, errors.New("the forge takes no pull requests")
	}
	adopted := strings.HasPrefix(head, "aob/adopt-") // a maintainer has asked for a fork's head
	if at := f.sim.repo.refs[git.Branch+head]; !f.sim.repo.made[at] && !adopted {
		f.sim.fail("AOB opens a pull request on branch %s, whose head %.8s it did not make", head, at)
	}
	if strings.HasSuffix(head, "-2") {
		f.sim.happens(preparedMet)
	}
	n := f.open(head, "aob")
	f.prs[n].Title = title
	return n, nil
}

func (f *simForge) Knows(_ context.Context, number int, branch string) (bool, error) {
	if err := f.ask("known", number); err != nil {
		return false, err
	}
	p, ok := f.prs[number]
	return ok && p.HeadRef == branch && p.Author == "aob", nil
}
