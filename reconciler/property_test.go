package reconciler

// No order of events turns aob/release green without evidence for exactly that
// content, ships what was not accepted, trains twice or says twice. Random
// sequences of events are played in the small world; what must never happen is
// checked where it would (sim_rules_test.go), and at the end, when everything
// works again, the loop must come to rest with what people are owed.
//
// A sequence that fails is made shorter and printed, with its seed. To play more:
//
//	AOB_SEEDS=1:20000 go test ./reconciler -run AnyOrder

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
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
)

func TestAnyOrderOfEvents(t *testing.T) {
	first, last := 1, 300
	if testing.Short() {
		last = 5
	}
	if seeds := os.Getenv("AOB_SEEDS"); seeds != "" {
		if _, err := fmt.Sscanf(seeds, "%d:%d", &first, &last); err != nil {
			t.Fatalf("AOB_SEEDS: want FIRST:LAST, got %q", seeds)
		}
	}
	seeds := make(chan int)
	var players sync.WaitGroup
	var mu sync.Mutex
	played, happened := 0, map[string]int{} // by mutation: in how many of the seeds
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			for seed := range seeds {
				events := sequence(seed)
				why, did := play(events)
				mu.Lock()
				played++
				for what := range did {
					happened[what]++
				}
				mu.Unlock()
				if why != "" {
					events, why = shorter(events, why)
					t.Errorf("seed %d, made shorter:\n%s\n%s", seed, script(events), why)
				}
			}
		})
	}
	for seed := first; seed <= last && !t.Failed(); seed++ {
		seeds <- seed
	}
	close(seeds)
	players.Wait()
	for _, what := range mutations {
		t.Logf("%4d of %d seeds: %s", happened[what], played, what)
		if played >= 300 && happened[what] < played/50 && !t.Failed() {
			t.Errorf("%s happens in %d of %d seeds: a rule about it is hardly ever tried", what, happened[what], played)
		}
	}
}

// What people and machines do against the loop. Each must really happen now and then.
const (
	severalBases   = "a head with several bases is proposed"
	fleetSwapped   = "main lets a fleet run another model"
	fleetHeld      = "a fleet is kept from another model"
	fleetChanged   = "a fleet changes its model"
	commentEdited  = "an edited comment accepts a verdict"
	acceptEdited   = "an edited comment accepts what a pull request waits for"
	reportEdited   = "AOB's own comment is edited"
	askedBack      = "AOB asks whether a comment is its author's word"
	consentForeign = "somebody else says yes to that"
	statusForged   = "a status is forged"
	forgedMerged   = "what is green by a forged status is merged"
	preparedBranch = "a branch of AOB's name is prepared"
	preparedMet    = "AOB wants a name that was prepared"
	copyWatched    = "a server in a copied state sees something to do"
	copyAdopted    = "a copied state is taken over"
)

var mutations = []string{severalBases, fleetSwapped, fleetHeld, fleetChanged, commentEdited, acceptEdited, reportEdited,
	askedBack, consentForeign,
	variantShipped, variantMissing, variantReversed,
	statusForged, forgedMerged, preparedBranch, preparedMet, copyWatched, copyAdopted}

// An event is something that happens to the world. Its numbers pick what it
// happens to, of what there is at the moment.
type event struct {
	do   string
	a, b int
}

func script(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\t{%q, %d, %d},\n", e.do, e.a, e.b)
	}
	return b.String()
}

// sequence is the random sequence of a seed.
func sequence(seed int) []event {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	var bag []string
	for _, name := range slices.Sorted(maps.Keys(happenings)) {
		for range happenings[name].often {
			bag = append(bag, name)
		}
	}
	events := make([]event, 10+random.IntN(70))
	for i := range events {
		events[i] = event{bag[random.IntN(len(bag))], random.IntN(1000), random.IntN(1000)}
	}
	return events
}

// broke is what a rule that was broken ends a play with.
type broke string

// play plays a sequence in a new world, and says which rule was broken and which
// mutations happened.
func play(events []event) (why string, did map[string]bool) {
	at := "the beginning"
	defer func() {
		switch r := recover().(type) {
		case nil:
		case broke:
			why = fmt.Sprintf("at %s: %s", at, string(r))
		default:
			why = fmt.Sprintf("at %s: panic: %v\n%s", at, r, debug.Stack())
		}
	}()
	s := newSimFailing(func(format string, args ...any) { panic(broke(fmt.Sprintf(format, args...))) })
	did = map[string]bool{}
	s.did = did
	s.poll = 5 * time.Second // a webhook that is lost costs some turns
	s.restart()
	s.repo.commit("main", "", s.now, map[string]string{
		"models/shapes.yaml": model("shapes", 1), "gates/production.yaml": gateFile("production", "shapes", 0.3),
		"fleets/demo.yaml":  fleet("demo", "shapes", ""),
		"models/signs.yaml": model("signs", 1), "gates/signs.yaml": gateFile("signs", "signs", 0.3),
		"fleets/east.yaml": fleet("east", "signs", ""),
		"fleets/late.yaml": fleet("late", "shapes", "after: {fleet: demo, healthy: 1m}\n"),
	})
	s.forge.permission["stranger"] = delivery.PermissionRead
	s.forge.teams = map[string][]string{"ada": {"vision"}} // whose name a user has, too
	s.fleet.add("demo", "a", "b", "c")
	s.fleet.add("east", "d", "e")
	s.fleet.add("late", "f")
	for i, e := range events {
		at = fmt.Sprintf("event %d, %s", i, e.do)
		happenings[e.do].do(s, e.a, e.b)
	}
	at = "the end"
	s.heal()
	s.settle()
	s.quiet()
	s.checkOwed()
	s.copyTurns()
	return "", did
}

// shorter leaves events out as long as the play ends with a broken rule.
func shorter(events []event, why string) ([]event, string) {
	for size := len(events) / 2; size >= 1; size /= 2 {
		for from := 0; from+size <= len(events); {
			fewer := slices.Delete(slices.Clone(events), from, from+size)
			if now, _ := play(fewer); now != "" {
				events, why = fewer, now
				continue
			}
			from += size
		}
	}
	return events, why
}

// heal ends every trouble that is not of people's making.
func (s *sim) heal() {
	s.forge.down, s.forge.busy, s.forge.old = false, false, nil
	s.repo.down, s.signed.down, s.fleet.down, s.ledger.full = false, false, false, false
	s.crashIn, s.fleet.silent = 0, nil
	clear(s.fleet.broken)
	for _, key := range s.runs.keys() {
		_ = s.runs.Retry(key)
	}
	if len(s.forge.forged)+len(s.forge.edited) > 0 {
		s.now = s.now.Add(2 * max(poll.StatusLasts, poll.BodyLasts)) // these are read back every so often
	}
	s.wake()
}

// checkOwed fails unless a world at rest has what people are owed: every pull request has an answer, and fleets run
// what main has accepted.
func (s *sim) checkOwed() {
	main, complaints := s.tree(s.main())
	if len(complaints) > 0 {
		return
	}
	for _, pr := range s.forge.list() {
		release := pr.Head + " " + delivery.ContextRelease
		// The same words may be those of AOB's former account.
		if by := s.forge.forged[release]; by != "" &&
			s.forge.own[release] != s.forge.statuses[pr.Head][delivery.ContextRelease] {
			s.fail("#%d shows a status that %s set", pr.Number, by)
		}
		if s.forge.edited[pr.Number] {
			s.fail("#%d shows what somebody wrote into AOB's comment", pr.Number)
		}
		state := s.forge.statuses[pr.Head][delivery.ContextRelease]
		if state.State == "" {
			s.fail("#%d has no aob/release at all", pr.Number)
		}
		if state.State == delivery.CheckPending && !pr.Draft && s.forge.may(pr.Author) == delivery.PermissionWrite &&
			!s.unsure(pr) {
			s.fail("#%d waits, and nothing happens any more: %s", pr.Number, state.Description)
		}
		if s.forge.comments[pr.Number] == "" {
			s.fail("#%d has no comment", pr.Number)
		}
	}
	free := func(name string, release delivery.Release) bool {
		f := main.Fleets.Of(name)
		bundle := s.owed(f, release)
		failed := slices.ContainsFunc(s.fleet.devices, func(d delivery.Device) bool {
			return d.Report.Ring == name && d.Report.Failed == bundle
		})
		if bundle == "" {
			s.happens(variantMissing)
		}
		return !f.Paused && f.Version == 0 && !failed && bundle != "" && !s.aborted(name, bundle)
	}
	for name, f := range main.Fleets.All() {
		release, named := main.Releases.Get(f.Runs)
		if f.Runs == "other" || s.fleet.published[name].Model == "other" {
			continue // stories know
		}
		held, _ := s.quarantines(release.Bundle)
		if !named || main.Models.Of(f.Runs).SpecDigest() != release.Spec || !s.accepted(f.Runs, release) || held {
			continue
		}
		if !free(name, release) || f.After != nil && (!free(f.After.Fleet, release) ||
			s.fleet.published[f.After.Fleet].Model == "other") {
			continue // the fleet before it may be kept from this release
		}
		for _, d := range s.fleet.devices {
			if d.Report.Ring == name && d.Report.Bundle != s.owed(f, release) {
				s.fail("device %s runs version %d as %s, and main has accepted version %d; the fleet: %+v",
					d.Report.Device, d.Report.Release, s.kindOf(d.Report.Bundle), release.Version,
					s.loop.observed.plan.Fleets)
			}
		}
	}
}

// unsure reports whether a gate waits for a person to settle a pull request.
func (s *sim) unsure(pr delivery.PullRequest) bool {
	head, _ := s.tree(pr.Head)
	main, _ := s.tree(s.main())
	for name, f := range head.Fleets.All() {
		// The gates of what a fleet runs judge what it is to run; their verdicts are signed when the release is.
		ran := cmp.Or(s.fleet.published[name].Model, main.Fleets.Of(name).Runs)
		if (ran != f.Runs || main.Fleets.Of(name).Runs != f.Runs) &&
			acceptAsked.MatchString(s.forge.comments[pr.Number]) {
			return true
		}
	}
	return slices.ContainsFunc(s.signed.statements, func(st simStatement) bool {
		v, ok := st.predicate.(delivery.Verdict)
		// Two models of one spec are one bundle, and share its verdicts.
		return ok && v.Outcome == delivery.Unsure &&
			slices.ContainsFunc(head.Models.Names(), func(name string) bool {
				return slices.Contains(s.bundlesOf(head.Models.Of(name)), st.bundle)
			})
	})
}

// bundlesOf lists what a model was resolved to, with thresholds too.
func (s *sim) bundlesOf(mdl delivery.Model) []delivery.Digest {
	var list []delivery.Digest
	for _, spec := range append(seedsOf(mdl), mdl.SpecDigest()) {
		if t, ok := s.signed.index.BySpec[spec]; ok {
			list = append(list, t.Bundle)
		}
	}
	for _, r := range s.signed.index.Resolved {
		if slices.Contains(list, r.Input.Valid.Bundle) {
			list = append(list, r.Result.Bundle)
		}
	}
	return list
}

// fleet is a fleet file.
func fleet(name, runs, more string) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Fleet\nname: %s\nruns: %s\nmatch: {site: demo}\nwaves: [1, "+
		"100%%]\nsoak: 3s\nadvance: all-healthy\n%s", name, runs, more)
}

// A happening is one kind of event.
type happening struct {
	often int
	do    func(s *sim, a, b int)
}

var (
	allModels = []string{"shapes", "shapes", "shapes", "signs"}
	allEpochs = []int{1, 2, 8, 14, 20}
	pauses    = []time.Duration{10 * time.Second, time.Minute, time.Hour, 2 * time.Hour, 13 * time.Hour,
		8 * 24 * time.Hour}
)

func of[T any](list []T, n int) T { return list[n%len(list)] }

var acceptAsked = regexp.MustCompile("/aob accept ([0-9a-f]{32}) because")

// accept comments what a pull request's own comment asks for, mostly, or else the
// code of any verdict.
func (s *sim) accept(a, b int) {
	waits := slices.DeleteFunc(s.forge.list(), func(pr delivery.PullRequest) bool {
		return !acceptAsked.MatchString(s.forge.comments[pr.Number])
	})
	var codes []string
	for _, st := range s.signed.statements {
		if v, ok := st.predicate.(delivery.Verdict); ok && v.Outcome != delivery.Pass {
			codes = append(codes, plan.AcceptCode(v))
		}
	}
	list := s.forge.list()
	if len(list) == 0 || len(codes) == 0 {
		return
	}
	pr, code := of(list, a), codes[len(codes)-1-a%min(3, len(codes))]
	switch {
	case b/4%4 == 0: // what was judged last
		pr, code = list[len(list)-1], codes[len(codes)-1]
	case len(waits) > 0:
		pr = of(waits, a)
		if b/16%4 != 0 {
			code = acceptAsked.FindStringSubmatch(s.forge.comments[pr.Number])[1]
		}
	}
	s.forge.comment(pr.Number, of([]string{"lead", "lead", "dev", "stranger", "ada", "vision"}, b), "/aob accept "+code+
		" because of this")
}

// doubt makes a pull request that a gate cannot decide about, or nearly so: all that it
// takes for a comment to decide, or to be tried.
func (s *sim) doubt(n int) {
	epochs := of([]int{8, 14}, n)
	bar := s.quality[epochs] + of([]float64{0.003, 0.003, 0.2}, n/2)
	s.pushMain(map[string]string{"gates/production.yaml": strings.Replace(gateFile("production", "shapes", bar),
		"[lead]", of([]string{"[lead]", "[lead]", "[vision]"}, n/6), 1)})
	s.change(fmt.Sprint("doubt", len(s.repo.commits)), "dev", map[string]string{"models/shapes.yaml": model("shapes",
		epochs)})
	s.rest()
}

// answer says yes to what AOB asks back: an owner to what is the owner's word, and others
// to anything.
func (s *sim) answer(n int) {
	for _, pr := range s.forge.list() {
		for _, question := range s.forge.questions[pr.Number] {
			s.happens(askedBack)
			by := of([]string{"lead", "lead", "dev", "stranger", "vision"}, n)
			if by != "lead" {
				s.happens(consentForeign)
			} else if !slices.ContainsFunc(s.forge.ever, func(c simCommand) bool {
				words := strings.Fields(c.Body)
				return c.Author == by && strings.HasPrefix(c.Body, "/aob accept ") &&
					strings.Contains(question, words[2])
			}) {
				continue // it is not the owner's word
			}
			s.forge.agree(question, by)
		}
	}
}

// someBranch is a branch that people push to, or AOB has made.
func (s *sim) someBranch(n int) string {
	list := []string{"b0", "b1", "b2"}
	for ref := range s.repo.refs {
		if name, ok := strings.CutPrefix(ref, git.Branch); ok && strings.HasPrefix(name, "aob/") {
			list = append(list, name)
		}
	}
	slices.Sort(list[3:])
	return of(list, n)
}

// change commits to a branch, made from main where it is not there, and opens
// its pull request.
func (s *sim) change(branch, author string, files map[string]string) {
	from := s.head(branch)
	if from == "" {
		from = s.main()
	}
	s.repo.commit(branch, from, s.now, files)
	s.forge.open(branch, author)
}

// landed moves main to a tree, with the parents that a way of merging gives.
func (s *sim) landed(head string, how int, files map[string]string) {
	parents := []string{s.main()}
	if how%2 == 0 {
		parents = append(parents, head)
	}
	s.repo.refs[git.Branch+"main"] = s.repo.write(parents, files, s.now, "merge")
}

// conflicts reports whether git would refuse to merge two commits.
func (s *sim) conflicts(a, b string) bool {
	from := s.repo.mergeBase(a, b)
	base, ours, theirs := s.repo.commits[from].files, s.repo.commits[a].files, s.repo.commits[b].files
	for _, files := range []map[string]string{base, ours, theirs} {
		for path := range files {
			if ours[path] != base[path] && theirs[path] != base[path] && ours[path] != theirs[path] {
				return true
			}
		}
	}
	return false
}

// mergePR does what a forge does when somebody presses the button.
func (s *sim) mergePR(n, how int, override bool) {
	if list := s.forge.list(); len(list) > 0 {
		s.mergeOne(s.forge.prs[of(list, n).Number], how, override)
	}
}

func (s *sim) mergeOne(p *simPR, how int, override bool) {
	head := s.forge.head(p)
	if !override && (p.Draft || s.forge.statuses[head][delivery.ContextRelease].State != delivery.CheckSuccess) ||
		s.conflicts(s.main(), head) {
		return
	}
	before, forged := s.main(), s.forge.forged[head+" "+delivery.ContextRelease] != ""
	s.landed(head, how, s.merged(s.main(), head))
	if !override && !forged {
		s.checkShown(before, head)
	}
	if forged && !override {
		s.happens(forgedMerged)
	}
	p.closed = true
	delete(s.repo.refs, git.Branch+p.HeadRef)
}

// pastRelease is a release file that some commit holds.
func (s *sim) pastRelease(name string, n int) (file, modelFile string) {
	var commits []string
	for id, c := range s.repo.commits {
		if c.files["models/"+name+".release.yaml"] != "" {
			commits = append(commits, id)
		}
	}
	if len(commits) == 0 {
		return "", ""
	}
	slices.SortFunc(commits, func(a, b string) int { return s.repo.commits[a].number - s.repo.commits[b].number })
	id := of(commits, n)
	return s.repo.read(id, "models/"+name+".release.yaml"), s.repo.read(id, "models/"+name+".yaml")
}

// byHand is what people do to a release file.
func (s *sim) byHand(commit, name string, n int) map[string]string {
	path := "models/" + name + ".release.yaml"
	now := s.repo.read(commit, path)
	past, pastModel := s.pastRelease(name, n/7)
	switch n % 7 {
	case 0:
		return map[string]string{path: strings.Replace(now, "version: ", "version: 1", 1)}
	case 1:
		return map[string]string{path: strings.Replace(now, "0.6", "0.9", 1)}
	case 2:
		return map[string]string{path: past}
	case 3:
		return map[string]string{path: past, "models/" + name + ".yaml": pastModel}
	case 4:
		if len(s.signed.order) > 0 && now != "" {
			doc := intent.ParseFile(intent.File{Path: path, Size: int64(len(now)), Data: []byte(now)}, intent.Options{})
			if forged, ok := doc.Value.(delivery.Release); ok {
				forged.Bundle = of(s.signed.order, n/7)
				return map[string]string{path: string(intent.FormatRelease(forged, nil))}
			}
		}
	case 5:
		return map[string]string{path: ""}
	}
	return map[string]string{"models/" + name + ".yaml": "# touched\n" + s.repo.read(commit, "models/"+name+".yaml")}
}

// withoutNothing drops changes that would write an empty model file.
func withoutNothing(files map[string]string) map[string]string {
	for path, text := range files {
		if text == "" && !strings.HasSuffix(path, ".release.yaml") {
			delete(files, path)
		}
	}
	return files
}

func (s *sim) pushMain(files map[string]string) {
	s.repo.commit("main", s.main(), s.now, withoutNothing(files))
}

func (s *sim) quarantine(name string, edit func(*delivery.Quarantine)) {
	main, _ := s.tree(s.main())
	q := main.Quarantines.Of(name)
	q.APIVersion, q.Kind, q.Name = delivery.APIVersion, "Quarantine", name
	q.Entries = slices.Clone(q.Entries)
	edit(&q)
	if len(q.Entries) > 0 {
		s.pushMain(map[string]string{"models/" + name + ".quarantine.yaml": string(intent.FormatQuarantine(q))})
	}
}

func (s *sim) someRun(n int) *delivery.RunState {
	if keys := s.runs.keys(); len(keys) > 0 {
		return s.runs.states[of(keys, n)]
	}
	return nil
}

var happenings = map[string]happening{
	// Only TestRetentionInAnyOrderOfEvents has it.
	nothingNeeds: {0, func(s *sim, _, _ int) { s.sweep() }},

	// People propose.
	"push": {8, func(s *sim, a, b int) {
		name := of(allModels, b)
		s.change(s.someBranch(a), "dev", map[string]string{"models/" + name + ".yaml": model(name, of(allEpochs, b/4))})
	}},
	"push by a stranger": {2, func(s *sim, a, b int) {
		s.change("x", "stranger", map[string]string{"models/shapes.yaml": model("shapes", of(allEpochs, b))})
	}},
	"force-push": {3, func(s *sim, a, b int) {
		name := of(allModels, b)
		delete(s.repo.refs, git.Branch+s.someBranch(a))
		s.change(s.someBranch(a), "dev", map[string]string{"models/" + name + ".yaml": model(name, of(allEpochs, b/4))})
	}},
	"amend": {2, func(s *sim, a, b int) {
		if head := s.head(s.someBranch(a)); head != "" {
			c := s.repo.commits[head]
			s.repo.refs[git.Branch+s.someBranch(a)] = s.repo.write(c.parents, c.files, s.now, fmt.Sprint("amended ", b))
		}
	}},
	"rebase": {3, func(s *sim, a, b int) {
		if head := s.head(s.someBranch(a)); head != "" && !s.conflicts(s.main(), head) {
			s.repo.refs[git.Branch+s.someBranch(a)] = s.repo.write([]string{s.main()}, s.merged(s.main(), head), s.now,
				"rebased")
		}
	}},
	"update": {2, func(s *sim, a, b int) {
		// As aob pr update: where only the release file conflicts, main's is taken.
		if head := s.head(s.someBranch(a)); head != "" {
			files := s.merged(s.main(), head)
			for path, blob := range s.repo.commits[s.main()].files {
				if strings.HasSuffix(path, ".release.yaml") {
					files[path] = blob
				}
			}
			s.repo.refs[git.Branch+s.someBranch(a)] = s.repo.write([]string{head, s.main()}, files, s.now, "update")
		}
	}},
	"edit a release file": {4, func(s *sim, a, b int) {
		if branch := s.someBranch(a); s.head(branch) != "" {
			s.change(branch, "dev", withoutNothing(s.byHand(s.head(branch), of(allModels, b), b/4)))
		}
	}},
	"propose a rollback": {2, func(s *sim, a, b int) {
		if past, pastModel := s.pastRelease("shapes", b); past != "" {
			s.change("back", "dev", withoutNothing(map[string]string{"models/shapes.release.yaml": past,
				"models/shapes.yaml": pastModel}))
		}
	}},
	"change a gate": {2, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"gates/production.yaml": gateFile("production", "shapes",
			of([]float64{0.01, 0.3, 0.603, 0.65, 0.703, 0.9}, b))})
	}},
	"change what a gate judges on": {3, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"gates/production.yaml": otherGate(b)})
	}},
	"push seeds": {3, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev",
			map[string]string{"models/shapes.yaml": withLines(model("shapes", of(allEpochs, b)), "  seeds: "+
				of([]string{"[1, 2]", "[2]", "[3, 1]"}, b/5))})
	}},
	"push thresholds": {4, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev",
			map[string]string{"models/shapes.yaml": withLines(model("shapes", of(allEpochs, b)),
				of([]string{"thresholds: {default: bestF1}", "thresholds: {default: 0.5, circle: {recall: 0.9}}"},
					b/5))})
	}},
	"push variants": {3, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev",
			map[string]string{"models/shapes.yaml": withLines(model("shapes", of(allEpochs, b)),
				of([]string{"variants: [fp32, int8]", "variants: [fp32, fp16, int8]"}, b/5))})
	}},
	"ask for a variant": {4, (*sim).asksFor},
	"ship a variant":    {3, (*sim).shipsVariant},
	"push classes": {6, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"models/shapes.yaml": otherClasses(b)})
	}},
	"release classes": {3, func(s *sim, a, b int) {
		// What one pull request begins, the next may end.
		branch := fmt.Sprint("classes", len(s.repo.commits))
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.yaml": otherClasses(b)})
		n := s.forge.open(branch, "dev")
		s.rest()
		s.mergeOne(s.forge.prs[n], a, false)
		s.rest()
	}},
	"go round a quarantine": {2, func(s *sim, a, b int) {
		main, _ := s.tree(s.main())
		r, ok := main.Releases.Get("shapes")
		mdl := s.repo.read(s.main(), "models/shapes.yaml")
		if !ok || mdl == "" || strings.Contains(mdl, "thresholds") {
			return
		}
		s.quarantine("shapes", func(q *delivery.Quarantine) {
			q.Entries = append(q.Entries, delivery.Quarantined{Digest: r.Bundle, Why: "smoke"})
		})
		files := map[string]string{"models/shapes.yaml": withLines(mdl, "thresholds: {default: bestF1}")}
		if a%2 == 0 {
			files = map[string]string{"models/third.yaml": strings.Replace(mdl, "name: shapes", "name: third", 1),
				"gates/third.yaml": gateFile("third", "third", 0.3)}
		}
		branch := fmt.Sprint("round", len(s.repo.commits))
		s.change(branch, "dev", files)
		s.rest()
		s.mergeOne(s.forge.prs[s.forge.open(branch, "dev")], b, false)
		s.rest()
	}},
	"propose a draft": {3, func(s *sim, a, b int) {
		branch := fmt.Sprint("idea", a%2)
		if s.head(branch) == "" {
			delete(s.forge.ready, s.forge.open(branch, "dev"))
		}
		n := s.forge.open(branch, "dev")
		s.forge.prs[n].Draft = !s.forge.ready[n]
		s.change(branch, "dev", map[string]string{"models/shapes.yaml": withLines(model("shapes", of(allEpochs, b)),
			fmt.Sprintf("  seeds: [%d]", 4+a%3))})
	}},
	"try": {2, func(s *sim, a, b int) { s.try("dev", of(allEpochs, a), of(allEpochs, b)) }},
	"add a gate": {1, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"gates/strict.yaml": strings.Replace(gateFile("strict",
			"shapes", of([]float64{0.2, 0.65}, b)), "dir: shapes", "dir: gold", 1)})
	}},
	"add a model": {1, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"models/third.yaml": model("third", of(allEpochs, b)),
			"gates/third.yaml": gateFile("third", "third", 0.3)})
	}},
	"remove a model": {1, func(s *sim, a, b int) {
		branch := s.someBranch(a)
		from := s.head(branch)
		if from == "" {
			from = s.main()
		}
		s.repo.commit(branch, from, s.now, map[string]string{"models/signs.yaml": "", "gates/signs.yaml": "",
			"fleets/east.yaml": "", "models/signs.release.yaml": ""})
		s.forge.open(branch, "dev")
	}},
	"rename a model": {2, func(s *sim, a, b int) {
		branch := s.someBranch(a)
		from := s.head(branch)
		if from == "" {
			from = s.main()
		}
		third := model("third", of(allEpochs, b))
		if old := s.repo.read(from, "models/signs.yaml"); old != "" && b%2 == 0 {
			third = strings.Replace(old, "name: signs", "name: third", 1)
		}
		if b%5 > 0 {
			third = withLines(third, "was: signs")
		}
		s.repo.commit(branch, from, s.now, map[string]string{"models/signs.yaml": "", "models/signs.release.yaml": "",
			"models/third.yaml": third,
			"gates/signs.yaml":  gateFile("signs", "third", of([]float64{0.01, 0.3}, b/2)),
			"fleets/east.yaml":  fleet("east", "third", "")})
		s.forge.open(branch, "dev")
	}},
	"forget a former name": {2, func(s *sim, a, b int) {
		if third := s.repo.read(s.main(), "models/third.yaml"); strings.Contains(third, "was: signs\n") {
			branch := fmt.Sprint("forget", len(s.repo.commits))
			s.change(branch, "dev", map[string]string{"models/third.yaml": strings.Replace(third, "was: signs\n", "",
				1)})
			s.rest()
			s.mergeOne(s.forge.prs[s.forge.open(branch, "dev")], a, false)
		}
	}},
	"break a file": {1, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"models/bad.yaml": "kind: Oops\n"})
	}},
	"mend the file": {1, func(s *sim, a, b int) {
		s.change(s.someBranch(a), "dev", map[string]string{"models/bad.yaml": ""})
	}},
	"fork": {1, func(s *sim, a, b int) {
		s.fork("fork", of([]string{"dev", "stranger"}, b), s.main(),
			map[string]string{"models/shapes.yaml": model("shapes", of(allEpochs, b/2))})
	}},
	"accept": {4, (*sim).accept},
	"a gate doubts": {3, func(s *sim, a, b int) {
		s.doubt(a)
		s.accept(b, b/7)
		s.rest()
	}},
	"close": {2, func(s *sim, a, b int) {
		if list := s.forge.list(); len(list) > 0 {
			s.forge.prs[of(list, a).Number].closed = true
		}
	}},
	"reopen": {1, func(s *sim, a, b int) {
		if n := len(s.forge.prs); n > 0 {
			s.forge.prs[1+a%n].closed = false
		}
	}},
	"draft": {2, func(s *sim, a, b int) {
		if list := s.forge.list(); len(list) > 0 {
			p := s.forge.prs[of(list, a).Number]
			p.Draft = !p.Draft
			s.forge.ready[p.Number] = s.forge.ready[p.Number] || !p.Draft
		}
	}},
	"go": {2, func(s *sim, a, b int) {
		for _, pr := range s.forge.list() {
			if head, _ := s.tree(pr.Head); pr.Author == "stranger" {
				s.forge.comment(pr.Number, of([]string{"dev", "stranger"}, a), "/aob run "+
					plan.ApprovalCode(head.Models.Of("shapes")))
			}
		}
	}},

	"release": {4, func(s *sim, a, b int) {
		// All that a release takes, for sequences that begin where others end.
		name := of(allModels, b)
		branch := fmt.Sprint("release", len(s.repo.commits))
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/" + name +
			".yaml": model(name, of(allEpochs, b/4))})
		n := s.forge.open(branch, "dev")
		s.rest()
		s.mergeOne(s.forge.prs[n], a, false)
		s.rest()
	}},

	// People go round the bar.
	"cross": {3, func(s *sim, a, b int) {
		// A branch raises the gate, or quarantines, and is merged; another crosses it.
		before := s.main()
		if len(s.repo.commits[before].parents) == 0 {
			s.pushMain(map[string]string{"gates/signs.yaml": "# crossed\n" + gateFile("signs", "signs", 0.3)})
			before = s.main()
		}
		bar := map[string]string{"gates/production.yaml": gateFile("production", "shapes", of([]float64{0.65, 0.703},
			a))}
		if main, _ := s.tree(before); a%3 == 0 && main.Releases.Of("shapes").Version > 0 &&
			len(main.Quarantines.Of("shapes").Entries) == 0 {
			q := delivery.Quarantine{APIVersion: delivery.APIVersion, Kind: "Quarantine", Name: "shapes",
				Entries: []delivery.Quarantined{{Digest: main.Releases.Of("shapes").Bundle, Why: "smoke"}}}
			bar = map[string]string{"models/shapes.quarantine.yaml": string(intent.FormatQuarantine(q))}
		}
		from := s.repo.commits[before].parents[0]
		side := s.repo.write([]string{from}, s.repo.with(from, bar), s.now, fmt.Sprint("bar", len(s.repo.commits)))
		s.repo.refs[git.Branch+"main"] = s.repo.write([]string{before, side}, s.repo.with(before, bar), s.now, "merge")
		branch := fmt.Sprint("cross", len(s.repo.commits))
		s.repo.refs[git.Branch+branch] = s.repo.write([]string{before, side},
			s.repo.with(before, map[string]string{"models/shapes.yaml": model("shapes", of(allEpochs, b))}), s.now,
			"cross")
		n := s.forge.open(branch, "dev")
		if bases, _ := s.repo.MergeBases(s.head(branch), s.main()); len(bases) > 1 {
			s.happens(severalBases)
		}
		s.rest()
		s.mergeOne(s.forge.prs[n], a, false)
		s.rest()
	}},
	"swap a fleet's model": {4, func(s *sim, a, b int) {
		// To a model with an easy gate of its own: at once, later, or past the forge.
		if s.fleet.published["demo"].Model == "" {
			s.change("first", "dev", map[string]string{"models/shapes.yaml": model("shapes", 8)})
			s.rest()
			s.mergeOne(s.forge.prs[s.forge.open("first", "dev")], a, false)
			s.rest()
		}
		easy := map[string]string{"models/other.yaml": model("other", of(allEpochs, b)),
			"gates/easy.yaml": gateFile("easy", "other", 0.01)}
		swap := runAll("other")
		release := func(files map[string]string) {
			branch := fmt.Sprint("swap", len(s.repo.commits))
			s.change(branch, "dev", files)
			s.rest()
			s.mergeOne(s.forge.prs[s.forge.open(branch, "dev")], a, false)
			s.rest()
		}
		if a%3 == 0 {
			maps.Copy(easy, swap)
		}
		release(easy)
		switch main, _ := s.tree(s.main()); {
		case a%3 == 1:
			release(swap)
		case a%3 == 2 && main.Models.Of("other").Name != "":
			if b%2 == 0 {
				swap["gates/production.yaml"] = gateFile("production", "shapes", 0.01)
			}
			s.pushMain(swap)
			s.rest()
		}
		if main, _ := s.tree(s.main()); main.Fleets.Of("demo").Runs == "other" {
			s.happens(fleetSwapped)
			if model := s.fleet.published["demo"].Model; model != "" && model != "other" {
				s.happens(fleetHeld)
			}
		}
	}},
	"swap it back": {2, func(s *sim, a, b int) { s.pushMain(runAll("shapes")) }},
	"lose a quarantine": {2, func(s *sim, a, b int) {
		path := "models/shapes.quarantine.yaml"
		if s.repo.read(s.main(), path) == "" {
			return
		}
		s.repo.commit("main", s.main(), s.now, map[string]string{path: ""})
		if a%2 == 0 {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/signs.yaml": fmt.Sprintf("# %d\n", b) +
				gateFile("signs", "signs", 0.3)})
		}
	}},
	"forge a status": {2, func(s *sim, a, b int) {
		list := s.forge.list()
		if len(list) == 0 {
			return
		}
		head := of(list, a).Head
		if s.forge.statuses[head] == nil {
			s.forge.statuses[head] = map[string]delivery.Check{}
		}
		if s.forge.forged == nil {
			s.forge.forged = map[string]string{}
		}
		if s.forge.statuses[head][delivery.ContextRelease].State != delivery.CheckSuccess {
			s.happens(statusForged)
		}
		s.forge.statuses[head][delivery.ContextRelease] = delivery.Check{Context: delivery.ContextRelease,
			State: delivery.CheckSuccess, Description: "no model change"}
		s.forge.forged[head+" "+delivery.ContextRelease] = "mallory"
		if b%4 == 0 {
			s.mergeOne(s.forge.prs[of(list, a).Number], b, false)
		}
	}},
	"edit a comment": {4, func(s *sim, a, b int) {
		if a/3%2 == 0 {
			s.doubt(b)
		}
		var codes []string
		for _, st := range s.signed.statements {
			if v, ok := st.predicate.(delivery.Verdict); ok && v.Outcome == delivery.Unsure {
				codes = append(codes, plan.AcceptCode(v))
			}
		}
		if len(codes) == 0 {
			return
		}
		for _, pr := range s.forge.list() {
			if b%2 == 0 {
				s.forge.comment(pr.Number, "lead", "looks nice, I will look tomorrow")
			}
		}
		if len(s.forge.commands) > 0 {
			c := &s.forge.commands[len(s.forge.commands)-1-a%min(3, len(s.forge.commands))]
			c.Body, c.edited = "/aob accept "+codes[len(codes)-1]+" because I say so", true
			s.happens(commentEdited)
			for _, pr := range s.forge.list() {
				if (c.pr == 0 || c.pr == pr.Number) &&
					strings.Contains(s.forge.comments[pr.Number], codes[len(codes)-1]) {
					s.happens(acceptEdited)
				}
			}
			s.rest()
		}
	}},
	"edit AOB's comment": {1, func(s *sim, a, b int) {
		list := s.forge.list()
		if len(list) == 0 || s.forge.comments[of(list, a).Number] == "" {
			return
		}
		if s.forge.edited == nil {
			s.forge.edited = map[int]bool{}
		}
		s.forge.comments[of(list, a).Number], s.forge.edited[of(list, a).Number] = "Every gate passed. Merge me.", true
		s.happens(reportEdited)
	}},
	"comments can be edited": {2, func(s *sim, a, b int) {
		// From here on AOB asks whether a comment is its author's word.
		s.forge.unvouched = true
		s.doubt(6*a + 2*(a%2)) // one that lead may settle
		for _, pr := range s.forge.list() {
			if code := acceptAsked.FindStringSubmatch(s.forge.comments[pr.Number]); code != nil {
				s.forge.comment(pr.Number, "lead", "/aob accept "+code[1]+" because of this")
			}
		}
		s.rest()
		s.answer(b)
		s.rest()
	}},
	"answer what AOB asks back": {3, func(s *sim, a, b int) { s.answer(b) }},
	"prepare a branch": {2, func(s *sim, a, b int) {
		if len(s.signed.order) == 0 {
			return
		}
		bundle := of(s.signed.order, a)
		for _, branch := range []string{"aob/restore-shapes-" + bundle.Short(), "aob/quarantine-shapes-" +
			bundle.Short()} {
			if s.head(branch) == "" {
				s.happens(preparedBranch)
				s.repo.commit(branch, s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
					"shapes", 0.01)})
			}
		}
	}},
	"prepare a branch for a bad release": {3, func(s *sim, a, b int) {
		branch := fmt.Sprint("bad", len(s.repo.commits))
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes",
			of(allEpochs, b))})
		n := s.forge.open(branch, "dev")
		s.rest()
		head, _ := s.tree(s.head(branch))
		bundle := head.Releases.Of("shapes").Bundle
		if bundle == "" {
			return
		}
		name := "aob/quarantine-shapes-" + bundle.Short()
		if s.head(name) == "" {
			s.happens(preparedBranch)
			s.repo.commit(name, s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
				"shapes", 0.01)})
		}
		s.fleet.broken[bundle] = true
		s.mergeOne(s.forge.prs[n], a, false)
		s.rest()
		s.rest()
	}},

	// The state folder is copied.
	"copy the state": {2, func(s *sim, a, b int) {
		s.copyState()
		s.copyTurns()
		s.copyTurns()
	}},
	"the copy turns": {4, func(s *sim, a, b int) {
		for range 1 + a%3 {
			s.copyTurns()
		}
	}},
	"the copy is taken over": {2, func(s *sim, a, b int) {
		if s.copy == nil {
			s.copyState()
			s.rest() // what the original does meanwhile is lost
			s.copyTurns()
		}
		s.takeOver()
	}},

	// Main moves.
	"merge":        {6, func(s *sim, a, b int) { s.mergePR(a, b, false) }},
	"merge anyway": {1, func(s *sim, a, b int) { s.mergePR(a, b, true) }},
	"revert":       {2, func(s *sim, a, b int) { s.revertMain() }},
	"push to main": {2, func(s *sim, a, b int) { s.pushMain(s.byHand(s.main(), of(allModels, b), b/4)) }},
	"push a spec to main": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"models/shapes.yaml": model("shapes", of(allEpochs, b))})
	}},
	"raise the gate": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes",
			of([]float64{0.3, 0.603, 0.65, 0.703, 0.9}, b))})
	}},
	"main judges otherwise": {3, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"gates/production.yaml": otherGate(b)})
	}},
	"quarantine": {1, func(s *sim, a, b int) {
		if len(s.signed.order) > 0 {
			s.quarantine("shapes", func(q *delivery.Quarantine) {
				q.Entries = append(q.Entries, delivery.Quarantined{Digest: of(s.signed.order, b), Why: "smoke"})
			})
		}
	}},
	"lift": {1, func(s *sim, a, b int) {
		s.quarantine("shapes", func(q *delivery.Quarantine) {
			for i := range q.Entries {
				q.Entries[i].Lifted = "mended"
			}
		})
	}},
	"pin a fleet": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"fleets/demo.yaml": fleet("demo", "shapes", fmt.Sprintf("version: %d\n", 1+b%4))})
	}},
	"unpin it": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"fleets/demo.yaml": fleet("demo", "shapes", "")})
	}},
	"pause a fleet": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"fleets/demo.yaml": fleet("demo", "shapes", "paused: true\n")})
	}},
	"break main": {1, func(s *sim, a, b int) { s.pushMain(map[string]string{"models/bad.yaml": "kind: Oops\n"}) }},
	"mend main": {2, func(s *sim, a, b int) {
		s.repo.commit("main", s.main(), s.now, map[string]string{"models/bad.yaml": ""})
	}},
	"push a comment": {1, func(s *sim, a, b int) {
		s.pushMain(map[string]string{"gates/signs.yaml": fmt.Sprintf("# %d\n", b) + gateFile("signs", "signs", 0.3)})
	}},

	// The loop turns, is woken, dies.
	"turn": {20, func(s *sim, a, b int) {
		for range 1 + a%4 {
			s.turn()
		}
	}},
	"webhook":         {6, func(s *sim, a, b int) { s.wake(); s.turn() }},
	"settle":          {5, func(s *sim, a, b int) { s.rest() }},
	"time passes":     {4, func(s *sim, a, b int) { s.now = s.now.Add(of(pauses, a)) }},
	"restart":         {2, func(s *sim, a, b int) { s.restart() }},
	"kill":            {4, func(s *sim, a, b int) { s.crashIn = 1 + a%12 }},
	"lose the ledger": {1, func(s *sim, a, b int) { s.ledger = newSimLedger(s); s.restart() }},
	"upgrade": {1, func(s *sim, a, b int) {
		if b%2 == 0 {
			s.server.Trainers = tiny(delivery.DigestOf("trainer", a))
		} else {
			s.server.Protocol = delivery.DigestOf("protocol", a)
		}
		s.restart()
	}},

	// Others fail.
	"forge down":    {1, func(s *sim, a, b int) { s.forge.down = true }},
	"forge busy":    {1, func(s *sim, a, b int) { s.forge.busy = true }},
	"forge up":      {3, func(s *sim, a, b int) { s.forge.down, s.forge.busy = false, false }},
	"forge is late": {1, func(s *sim, a, b int) { s.forge.old = s.forge.list() }},
	"forge knows":   {2, func(s *sim, a, b int) { s.forge.old = nil }},
	"git down":      {1, func(s *sim, a, b int) { s.repo.down = true }},
	"git up":        {2, func(s *sim, a, b int) { s.repo.down = false }},
	"registry down": {1, func(s *sim, a, b int) { s.signed.down = true }},
	"registry up":   {2, func(s *sim, a, b int) { s.signed.down = false }},
	"disk full":     {1, func(s *sim, a, b int) { s.ledger.full, s.fleet.down = true, b%2 == 0 }},
	"disk free":     {2, func(s *sim, a, b int) { s.ledger.full, s.fleet.down = false, false }},

	// Runs.
	"a run ends": {10, func(s *sim, a, b int) {
		if r := s.someRun(a); r != nil {
			s.runs.finish(r.Spec.Key)
		}
	}},
	"runs end": {6, func(s *sim, a, b int) { s.runs.finishAll() }},
	"a run dies": {2, func(s *sim, a, b int) {
		if r := s.someRun(a); r != nil && r.Phase == delivery.RunRunning {
			r.Phase = delivery.RunDied
		}
	}},
	"a run fails": {2, func(s *sim, a, b int) {
		if r := s.someRun(a); r != nil && r.Phase == delivery.RunRunning {
			r.Phase, r.Error, r.Ended = delivery.RunFailed, "out of memory", s.now
		}
	}},
	"recheck": {2, func(s *sim, a, b int) {
		if plans := s.loop.observed.plan.Proposals; len(plans) > 0 {
			_ = s.loop.recheck(of(plans, a).Runs, s.now.Add(time.Second))
			s.wake()
		}
	}},
	"a run is lost": {1, func(s *sim, a, b int) {
		if r := s.someRun(a); r != nil && r.Phase != delivery.RunRunning && r.Spec.Kind != delivery.RunTrain {
			_ = s.runs.Remove(r.Spec.Key)
		}
	}},

	// Devices.
	"a device reports": {4, func(s *sim, a, b int) { s.fleet.reportOne(a % len(s.fleet.devices)) }},
	"devices report":   {4, func(s *sim, a, b int) { s.fleet.report() }},
	"a device is silent": {1, func(s *sim, a, b int) {
		s.fleet.silent = map[string]bool{s.fleet.devices[a%len(s.fleet.devices)].Report.Device: true}
	}},
	"all are heard":   {1, func(s *sim, a, b int) { s.fleet.silent = nil }},
	"a device is new": {1, func(s *sim, a, b int) { s.fleet.add("demo", fmt.Sprintf("n%d", len(s.fleet.devices))) }},
	"a bundle is bad": {1, func(s *sim, a, b int) {
		if len(s.signed.order) > 0 {
			s.fleet.broken[of(s.signed.order, a)] = true
		}
	}},
}

// runAll lets fleet demo, and the one that comes after it, run a model.
func runAll(model string) map[string]string {
	return map[string]string{"fleets/demo.yaml": fleet("demo", model, ""), "fleets/late.yaml": fleet("late", model,
		"after: {fleet: demo, healthy: 1m}\n")}
}

// otherGate is the gate as somebody might have it instead: another bar, eval set,
// number of looks or owner.
func otherGate(n int) string {
	gate := gateFile("production", "shapes", of([]float64{0.01, 0.3, 0.603}, n/11))
	switch n % 13 {
	case 0:
		return strings.Replace(gate, "dir: shapes", "dir: easy", 1)
	case 1:
		return withLines(gate, "looks: "+fmt.Sprint(1+n/13%3))
	case 2:
		return withLines(gate, "  - {metric: recall, at: threshold, min: 0.5}")
	case 3:
		return withLines(gate, "  - {metric: mAP, maxDrop: 0.01, against: shapes@1}")
	case 4:
		return strings.Replace(gate, "owners: [lead]", "owners: [dev]", 1)
	case 5:
		return strings.Replace(gate, "dir: shapes", "dir: shapes/labels-2", 1)
	case 6:
		return strings.Replace(gate, "owners: [lead]", "owners: [vision]", 1)
	case 7:
		return withLines(gate, "  - {metric: AP, classes: all, min: 0.3}")
	case 8:
		return withLines(gate, "  - {metric: AP, classes: [square], min: 0.3}")
	case 9:
		return strings.NewReplacer("min: 0", "except: [circle], min: 0", "maxDrop: 0",
			"except: [circle], maxDrop: 0").Replace(gate)
	case 10:
		return withLines(gate, "labels: {square: [square, easy]}")
	case 11:
		return withLines(gate, "  - {metric: AP, classes: all, min: 0.3}", "labels: {square: [square, box]}")
	case 12:
		return strings.Replace(gate, "[circle, square]", of([]string{"[circle]", "[square, circle]",
			"[circle, square, easy]", "[square]"}, n/13), 1)
	}
	return gate
}

// otherClasses is the model with a class list that somebody may want, or try.
func otherClasses(n int) string {
	return classes(model("shapes", of([]int{8, 14, 20}, n/17)), of([]string{
		"[square, circle]", "[circle, square, triangle]", "[circle, box]", "[square]", "[circle, easy]",
		"[circle, square]", "[circle, square, easy]",
		"{circle: [circle], square: [easy]}", "{circle: [circle], square: [square, easy]}",
		"{circle: [circle], box: [easy]}", "{circle: [circle], box: [square]}",
		"{circle: [circle], square: [square], box: [square]}",
	}, n))
}

// revertMain makes main's tree what it was before its head.
func (s *sim) revertMain() {
	if len(s.repo.commits[s.main()].parents) > 0 {
		s.revert()
	}
}

// rest lets the loop and all runs and devices go on for a while.
func (s *sim) rest() {
	for range 12 {
		s.turn()
		s.runs.finishAll()
		s.fleet.report()
	}
}
