package plan_test

// Golden cases: testdata/*.txtar, one decision each, numbered as the cases of the
// design. An archive begins with what it shows, and holds
//
//	main/…, main~1/…   intent on main, and on main before its last commits
//	base/…             where pull requests left main; main, where it is not given
//	pr/3/…             pull request 3
//	then/3/…           the same at another time, where a line of world speaks of it
//	world              what else is seen, a line each: see scene.line
//	plan               what must come of it: codes and values
//
// A tree is given by what it has in place of main's files (then/3: of pr/3's); an
// empty file is one that is not there. In files ${a} is the digest of bundle a,
// ${spec} that of the spec beside a release file, and ${evalset} that of what its
// gate judges on.

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/words"
)

var update = flag.Bool("update", false, "write the plans of the golden cases as they come out now; then read every one")

func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden cases", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "plan" })
			if i < 0 {
				t.Fatal("the case has no file plan")
			}
			w := world(t, a)
			got := shown(plan.Make(w))
			if again := shown(plan.Make(w)); again != got {
				t.Errorf("the same world gives another plan:\n%s", cmp.Diff(got, again))
			}
			if *update {
				a.Files[i].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(a.Files[i].Data), got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// Each kind of status that a plan sets is in the documents.
func TestStatusesAreDocumented(t *testing.T) {
	documents := ""
	for _, pattern := range []string{"../../README.md", "../../docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			documents += string(data)
		}
	}
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no golden cases", err)
	}
	kinds := map[string]bool{}
	gate := regexp.MustCompile(`^aob/gate/.*?(\.proposed)?$`)
	status := regexp.MustCompile(`(?m)^    (?:success|failure|pending)  ?(aob/\S+)$`)
	for _, path := range cases {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range status.FindAllSubmatch(data, -1) {
			kind := gate.ReplaceAllString(string(m[1]), "aob/gate/NAME$1")
			if strings.HasPrefix(kind, delivery.ContextRollout) {
				kind = delivery.ContextRollout + "NAME"
			}
			kinds[kind] = true
		}
	}
	if !kinds["aob/gate/NAME.proposed"] || !kinds[delivery.ContextRelease] {
		t.Errorf("the golden cases have %v", kinds)
	}
	for kind := range kinds {
		if !strings.Contains(documents, "`"+kind+"`") {
			t.Errorf("no document explains the status %s", kind)
		}
	}
}

// about returns the bundles that a statement names as the one that it is about.
func about(predicate any) []delivery.Digest {
	switch p := predicate.(type) {
	case delivery.Training:
		return []delivery.Digest{p.Result.Bundle}
	case delivery.Scores:
		return []delivery.Digest{p.Input.Bundle}
	case delivery.Resolved:
		return []delivery.Digest{p.Input.Valid.Bundle, p.Result.Bundle}
	case delivery.Verdict:
		return []delivery.Digest{p.Bundle}
	case delivery.ReleaseStatement:
		list := []delivery.Digest{p.Bundle}
		for _, g := range p.Gates {
			list = append(list, g.Verdict.Bundle)
		}
		return list
	}
	return nil
}

// shown writes a plan without words.
func shown(p plan.Plan) string {
	var b strings.Builder
	check := func(context string, state delivery.CheckState, facts []delivery.Fact) {
		fmt.Fprintf(&b, "    %-8s %s\n", state, context)
		for _, f := range facts {
			fmt.Fprintf(&b, "        %s\n", f)
		}
	}
	for _, r := range p.Proposals {
		fmt.Fprintf(&b, "#%d %.12s\n", r.PR.Number, r.PR.Head)
		for _, c := range r.Checks {
			check(c.Context, c.State, c.Facts)
		}
	}
	if p.Main.Commit != "" {
		fmt.Fprintf(&b, "%s %.12s\n", p.Main.Branch, p.Main.Commit)
		for _, c := range p.Main.Checks {
			check(c.Context, c.State, c.Facts)
		}
	}
	for _, f := range p.Fleets {
		fmt.Fprintf(&b, "fleet %s\n", f.Fleet)
		check(delivery.ContextRollout+f.Fleet, f.State, f.Facts)
	}
	var steps []string
	for _, s := range p.Steps {
		kind := strings.TrimPrefix(fmt.Sprintf("%T", s), "plan.")
		switch s := s.(type) {
		case plan.StartRun:
			from := ""
			if t := s.Spec.Train; t != nil && t.Weights != nil {
				from = " from weights " + t.Weights.SHA256.Short()
			} else if t != nil && t.Parent != "" {
				from = " from " + t.Parent.Short() + ", checkpoint " + t.Checkpoint.Short()
			}
			steps = append(steps, fmt.Sprintf("%s %s %s %v%s", kind, s.Spec.Kind, s.Spec.Key.Short(), s.PRs, from))
		case plan.EndRun:
			steps = append(steps, fmt.Sprintf("%s %s %s %s", kind, s.Kind, s.Run.Short(), s.Why))
		case plan.KeepNeed:
			steps = append(steps, fmt.Sprintf("%s %s %s %v %s", kind, s.Kind, s.Run.Short(), s.Need.PRs,
				s.Need.Since.Format(time.TimeOnly)))
		case plan.Sign:
			text := fmt.Sprintf("%s %s of %s for %s", kind, s.Type[strings.LastIndex(s.Type, "/")+1:], s.Of,
				s.Bundle.Short())
			for _, about := range about(s.Predicate) {
				if about != s.Bundle { // evidence refuses it
					text += ", but about " + about.Short()
				}
			}
			steps = append(steps, text)
		case plan.CommitRelease:
			for _, r := range s.Releases {
				steps = append(steps, fmt.Sprintf("%s %s version %d to %s", kind, r.Name, r.Version, s.PR.HeadRef))
			}
		case plan.Propose:
			steps = append(steps, fmt.Sprintf("%s %s %s %s", kind, s.Branch, s.Title, s.Body))
		case plan.Publish:
			d := s.Desired
			as := ""
			if s.Variant != "" {
				as = " as " + s.Variant
			}
			steps = append(steps, fmt.Sprintf("%s %s to %s version %d%s, %d of %d devices", kind, d.Ring, d.Model,
				d.Release.Version, as, s.Wave, s.Devices))
		default:
			steps = append(steps, fmt.Sprintf("%s %s", kind, s.Key()))
		}
	}
	slices.Sort(steps)
	for _, s := range steps {
		b.WriteString(s + "\n")
	}
	return b.String()
}

// The words of every case stand in one file of package words.
func TestTextOfGoldenCases(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden cases", err)
	}
	var all txtar.Archive
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Files = append(all.Files, txtar.File{Name: strings.TrimSuffix(filepath.Base(path), ".txtar"),
			Data: []byte(words.Plan(plan.Make(world(t, a))))})
	}
	const file = "../words/testdata/plans.txtar"
	got := txtar.Format(&all)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
}

// A scene is a world while it is read.
type scene struct {
	*testing.T
	plan.World
	files  map[string]map[string]string // by tree and path
	trees  map[string]delivery.Intent
	words  []string          // of the line that is read
	values map[string]string // its key=value pairs
	made   map[string]made   // by bundle
}

// made is what a bundle was made of, and what it scored by eval set.
type made struct {
	model  delivery.Model
	mAP    float64
	scores map[delivery.EvalSet]delivery.Scores
}

func world(t *testing.T, a *txtar.Archive) plan.World {
	s := &scene{T: t, files: map[string]map[string]string{}, trees: map[string]delivery.Intent{},
		made: map[string]made{}, World: plan.World{
			At: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), ProposalsKnown: true, Main: plan.Main{Branch: "main",
				Commit: "main", History: map[string][]plan.Past{}},
			Runs: map[delivery.Digest]delivery.RunState{}, Devices: map[string][]delivery.Device{},
			Clocks: map[string]rollout.State{}, Published: map[string]delivery.Desired{},
			Evidence: plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{},
				ByRun: map[delivery.Digest]plan.Trained{}, Scores: map[delivery.Digest]delivery.Scores{},
				Resolved: map[delivery.Digest]delivery.Resolved{}, Verdicts: map[delivery.Digest]delivery.Verdict{},
				Accepted: map[string][]delivery.Acceptance{}, Bundles: map[delivery.Digest]plan.Bundle{}},
			Server: plan.Server{Trainers: map[string]delivery.Trainer{
				"tiny@1": {Files: delivery.Sum([]byte("tiny")), Accelerator: "cpu"}},
				Protocol: delivery.Sum([]byte("protocol")),
				Numerics: "1", Provider: "cpu", Expiry: delivery.Duration(24 * time.Hour),
				Deadline: delivery.Duration(time.Hour)}}}
	var lines string
	for _, f := range a.Files {
		switch tree, path := split(f.Name); {
		case f.Name == "world":
			lines = string(f.Data)
		case tree != "":
			if s.files[tree] == nil {
				s.files[tree] = map[string]string{}
			}
			s.files[tree][path] = string(f.Data)
		case f.Name != "plan":
			t.Fatalf("%s is no file of a case", f.Name)
		}
	}
	s.Main.Intent, s.Main.Complaints = s.tree("main")
	base, _ := s.tree("base")
	for _, tree := range slices.Sorted(maps.Keys(s.files)) {
		head, complaints := s.tree(tree)
		if number, ok := strings.CutPrefix(tree, "pr/"); ok {
			merged, _ := s.tree("merged/" + number)
			s.Proposals = append(s.Proposals, plan.Proposal{Intent: head, Base: base, Merged: merged,
				Bases: []string{"base"}, Complaints: complaints, Permission: delivery.PermissionWrite,
				PullRequest: delivery.PullRequest{Number: s.number(number), Title: "by dev", Author: "dev", Head: tree,
					HeadRef: "change-" + number, Base: "main"}})
		}
	}
	for line := range strings.Lines(lines) {
		s.line(line)
	}
	for _, model := range plan.NeedsHistory(s.World) {
		s.Main.History[model] = s.history(model)
	}
	return s.World
}

// split parts a name into its tree and the path in that.
func split(name string) (tree, path string) {
	for _, folder := range intent.Folders() {
		if tree, path, ok := strings.Cut(name, "/"+folder+"/"); ok {
			return tree, folder + "/" + path
		}
	}
	return "", name
}

// trainers are those in the repository.
var trainers = func() intent.Trainers {
	list, err := intent.LoadTrainers(os.DirFS("../../trainers"))
	if err != nil {
		panic(err)
	}
	return list
}()

// tree puts a tree together and parses it.
func (s *scene) tree(name string) (delivery.Intent, []delivery.Complaint) {
	files := map[string]string{}
	maps.Copy(files, s.files["main"])
	if kind, number, ok := strings.Cut(name, "/"); ok && kind == "merged" {
		maps.Copy(files, s.files["pr/"+number]) // what the head has as base has it is main's
	} else if ok {
		maps.Copy(files, s.files["base"])
		if kind == "then" {
			maps.Copy(files, s.files["pr/"+number])
		}
	}
	maps.Copy(files, s.files[name])
	maps.DeleteFunc(files, func(_, text string) bool { return text == "" })
	parse := func() (delivery.Intent, []delivery.Complaint) {
		var list []intent.File
		for path, text := range files {
			list = append(list, intent.File{Path: path, Size: int64(len(text)), Data: []byte(text),
				Hash: string(delivery.Sum([]byte(text)))})
		}
		return intent.Parse(list, intent.Options{Trainers: trainers})
	}
	named, _ := parse() // what release files name by digest
	for path, text := range files {
		files[path] = os.Expand(text, func(word string) string {
			model := named.Models.Of(modelOf(path))
			switch word {
			case "spec":
				return string(model.SpecDigest())
			case "evalset":
				return string(content(model, named.Gates.Of(named.Covering(model.Name)[0]).Evaluate).Digest())
			}
			return string(bundle(word))
		})
	}
	var complaints []delivery.Complaint
	s.trees[name], complaints = parse()
	return s.trees[name], complaints
}

// modelOf names the model of a file under models/.
func modelOf(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(path, "models/"), ".yaml"), ".release")
}

// bundle is a digest that is easy to read: aaaaaaaaaaaa for a.
func bundle(letter string) delivery.Digest {
	return delivery.Digest("sha256:" + strings.Repeat(letter, 64))
}

// history is what main's release file of a model has said, newest first.
func (s *scene) history(model string) []plan.Past {
	var list []plan.Past
	for n, commit := 1, "main"; ; n++ {
		older := fmt.Sprintf("main~%d", n)
		now, before := s.trees[commit].Releases.Of(model), s.trees[older].Releases.Of(model)
		if !delivery.SameRelease(now, before) {
			past := plan.Past{Commit: commit}
			if now.Version > 0 {
				past.Release, past.Spec = &now, s.trees[commit].Models.Of(model).SpecDigest()
			} else {
				past.Pull = 30
			}
			list = append(list, past)
		}
		if s.files[older] == nil {
			return list
		}
		commit = older
	}
}

// line reads a fact: words, then key=value pairs whose values may have spaces.
//
//	draft 3                            it is a draft; all are by someone who may write
//	checked FILE                       the data run of a model file is done
//	… train=120 valid=30 objects=circle:9 content=b
//	                                   that has found so many images and objects, in other files than usual
//	training FILE epoch=3/8            its train run is running, needed by pull request 3
//	… for=4 5 since=2m ending=why      by others; or by none since then; it was asked to end just now
//	installing FILE packages=80/114    its train run makes the environment of its trainer
//	weights w licence=MIT              the server has base weights
//	licence tiny of=PML-1.0            the licence of an architecture
//	… data=other made=other            it was begun on another data run, and on what that one made
//	merged 3, reads 3, targets 3 base=dev, unseen 4
//	                                   of pull requests: main has it; its author may only read; its target; its
//	                                   commit is not here
//	forge away                         nobody knows which pull requests are open
//	queue 2                            so many runs at once that are no trainings
//	trains 1                           so many trainings at once
//	had a for=3                        #3 has had a training before
//	running FILE for=3                 its data run is running
//	crossed 3, unrelated 4             of pull requests: two best common ancestors with main; none
//	held a model=shapes why=… in=C     main's quarantine file had the entry until commit C
//	weakened TREE/gates/NAME.yaml in=C commit C of main removed or weakened the gate that TREE has
//	repointed demo from=shapes in=C    commit C of main made the fleet run another model; main's gates of the model
//	                                   before judge that
//	rewound COMMIT                     main was at another commit before, and does not contain it
//	bundle a of=FILE mAP=0.60          made from a model file, and scored for its gates
//	… checkpoint=c licence=MIT         its checkpoint is kept; what it is made of is under a licence
//	… twin=a                           its ONNX file is that of another bundle, whose scores it has
//	… train=120 …                      what its data run has found is signed, as of checked
//	variant v of=a is=int8 mAP=0.59 faster=1.5
//	                                   made of bundle a, so many times as fast, and scored as bundles are
//	failed WHY made=a is=int8          the run that makes it has failed
//	lost a                             the registry has the bundle no more
//	compared b with=a                  the bootstrap that compares them is done
//	statement FILE baseline=a gates=…  a release file is signed, as judged by main's gates or by those of another tree
//	accepted a version=1 was=old       main has accepted the bundle, of a model that was called so before
//	… int8=v                           and a variant with it
//	fleet demo runs=b version=2 before=a devices=x y
//	                                   all devices are healthy on b, as they were on a before
//	… model=shapes                     it was told to run another model than main's file names
//	abort demo of=b lifts=0            it fell back from b to that, when b had been lifted so often
//	newer acceptance format=2          a newer aob has signed such a statement; known=0 where its kind is not known
//	upgraded trainer, upgraded evaluator
//	                                   another one than that which the lines before have seen
func (s *scene) line(line string) {
	last := ""
	s.words, s.values = nil, map[string]string{}
	for _, word := range strings.Fields(line) {
		key, value, pair := strings.Cut(word, "=")
		switch {
		case pair:
			last, s.values[key] = key, value
		case last != "":
			s.values[last] += " " + word
		default:
			s.words = append(s.words, word)
		}
	}
	if len(s.words) != 2 {
		s.Fatalf("want two words and then pairs, got %q", line)
	}
	read, ok := readLines[s.words[0]]
	if !ok {
		s.Fatalf("what is %q?", line)
	}
	read(s, s.words[1])
	if len(s.values) > 0 {
		s.Fatalf("%q: what are %v?", line, s.values)
	}
}

// readLines reads the lines of a world, by their first word.
var readLines = map[string]func(s *scene, what string){
	"draft":   func(s *scene, what string) { s.proposal(what).Draft = true },
	"merged":  func(s *scene, what string) { s.proposal(what).Landed = true },
	"reads":   func(s *scene, what string) { s.proposal(what).Permission = delivery.PermissionRead },
	"targets": func(s *scene, what string) { s.proposal(what).PullRequest.Base = s.value("base") },
	"unseen": func(s *scene, what string) {
		s.Proposals = append(s.Proposals, plan.Proposal{
			Pending: delivery.Fact{Code: code.PermissionAwaited, Values: delivery.Values{By: "dev"}},
			PullRequest: delivery.PullRequest{Number: s.number(what), Title: "by dev", Author: "dev", Head: "pr/" +
				what, Base: "main"}})
	},
	"crossed":   func(s *scene, what string) { s.proposal(what).Bases = []string{"base", "base~1"} },
	"unrelated": func(s *scene, what string) { s.proposal(what).Bases = nil },
	"held":      (*scene).held,
	"weakened":  (*scene).weakened,
	"repointed": (*scene).repointed,
	"forge":     func(s *scene, what string) { s.ProposalsKnown = what != "away" },
	"queue":     func(s *scene, what string) { s.Server.Runs = s.number(what) },
	"trains":    func(s *scene, what string) { s.Server.Trainings = s.number(what) },
	"rewound": func(s *scene, what string) {
		s.Main.Rewound = []plan.Rewound{{From: what, To: s.Main.Commit, At: s.At, Ahead: true}}
	},
	"running": func(s *scene, what string) {
		ask, _ := s.data(what)
		key := delivery.DataKey(ask)
		s.Runs[key] = delivery.RunState{Phase: delivery.RunRunning, Attempt: 1, Need: s.need(),
			Spec: delivery.RunSpec{Kind: delivery.RunData, Key: key, Data: &ask}}
	},
	"checked": func(s *scene, what string) {
		ask, found := s.data(what)
		s.counts(&found)
		s.run(delivery.RunSpec{Kind: delivery.RunData, Key: delivery.DataKey(ask), Data: &ask}, found)
	},
	"had": func(s *scene, what string) { // a training that is over
		key := delivery.Sum([]byte(what))
		s.Runs[key] = delivery.RunState{Phase: delivery.RunFailed, Attempt: 1, Need: s.need(),
			Started: s.At.Add(-time.Hour),
			Spec:    delivery.RunSpec{Kind: delivery.RunTrain, Key: key}}
	},
	"training": (*scene).trainingRun,
	"installing": func(s *scene, what string) {
		ask := s.training(what)
		r := delivery.RunState{Phase: delivery.RunRunning, Attempt: 1, Stage: delivery.StageEnvironment,
			Need: delivery.RunNeed{PRs: []int{3}}, Status: delivery.RunStatus{Message: "waiting"},
			Spec: delivery.RunSpec{Kind: delivery.RunTrain, Key: delivery.TrainKey(ask), Train: &ask}}
		if packages := s.value("packages"); packages != "" {
			if _, err := fmt.Sscanf(packages, "%d/%d", &r.Status.Batch, &r.Status.Batches); err != nil {
				s.Fatal(err)
			}
		}
		s.Runs[r.Spec.Key] = r
	},
	"weights": func(s *scene, what string) {
		s.Server.Weights = map[string]delivery.Weights{what: {SHA256: bundle(what), Licence: s.value("licence")}}
	},
	"licence": func(s *scene, what string) {
		tiny := s.Server.Trainers["tiny@1"]
		tiny.Licences = map[string]string{what: s.value("of")}
		s.Server.Trainers["tiny@1"] = tiny
	},
	"bundle":  func(s *scene, what string) { s.bundle(what) },
	"variant": (*scene).variant,
	"failed": func(s *scene, what string) {
		ask := s.variantRun(s.value("made"), s.value("is"))
		s.Runs[delivery.VariantKey(ask)] = delivery.RunState{Phase: delivery.RunFailed, Attempt: 1,
			Error: "the trainer failed: " + what, Spec: delivery.RunSpec{Kind: delivery.RunVariant,
				Key: delivery.VariantKey(ask), Variant: &ask}}
	},
	"lost": func(s *scene, what string) { delete(s.Evidence.Bundles, bundle(what)) },
	"compared": func(s *scene, what string) {
		baseline := s.value("with")
		for e := range s.made[what].scores {
			ask, result := s.comparison(what, baseline, e)
			s.run(delivery.RunSpec{Kind: delivery.RunCompare, Key: delivery.CompareKey(ask), Compare: &ask}, result)
		}
	},
	"statement": func(s *scene, what string) { s.statement(what) },
	"accepted": func(s *scene, what string) {
		m := s.made[what].model
		s.Evidence.Accepted[m.Name] = append(s.Evidence.Accepted[m.Name], delivery.Acceptance{Model: m.Name,
			Version: s.number(s.value("version")), Spec: m.SpecDigest(), Bundle: bundle(what),
			RenamedFrom: s.value("was"), Variants: s.acceptedVariants()})
	},
	"benched":  (*scene).benched,
	"device":   (*scene).device,
	"asked":    (*scene).asked,
	"fleet":    func(s *scene, what string) { s.fleet(what) },
	"abort":    (*scene).abort,
	"newer":    (*scene).newer,
	"upgraded": (*scene).upgraded,
}

// acceptedVariants reads which variants main has accepted with a release.
func (s *scene) acceptedVariants() (list []delivery.AcceptedVariant) {
	for _, variant := range []string{delivery.FP16, delivery.INT8} {
		if of := s.value(variant); of != "" {
			list = append(list, delivery.AcceptedVariant{Variant: variant, Bundle: bundle(of)})
		}
	}
	return list
}

// held reads an entry of main's quarantine file.
func (s *scene) held(what string) {
	model := s.value("model")
	if s.Main.Quarantine == nil {
		s.Main.Quarantine = map[string][]plan.QuarantineEntry{}
	}
	entry := plan.QuarantineEntry{Quarantined: delivery.Quarantined{Digest: bundle(what), Why: s.value("why")},
		Lost: s.value("in")}
	s.Main.Quarantine[model] = append(s.Main.Quarantine[model], entry)
}

// weakened reads a gate that main lost.
func (s *scene) weakened(what string) {
	tree, path := split(what)
	name := strings.TrimSuffix(filepath.Base(path), ".yaml")
	g, ok := s.trees[tree].Gates.Get(name)
	if !ok {
		s.Fatalf("%s has no gate %s", tree, name)
	}
	s.Main.Lost = append(s.Main.Lost, plan.LostGate{Gate: g, Commit: s.value("in")})
}

// repointed reads that main let a fleet run another model.
func (s *scene) repointed(what string) {
	step := plan.Repoint{Commit: s.value("in"), From: s.value("from")}
	for _, name := range s.Main.Intent.Covering(step.From) {
		step.Gates = append(step.Gates, s.Main.Intent.Gates.Of(name))
	}
	s.Main.Repointed = map[string][]plan.Repoint{what: append(s.Main.Repointed[what], step)}
}

// trainingRun reads a training that runs.
func (s *scene) trainingRun(what string) {
	ask := s.training(what)
	if other := s.value("data"); other != "" {
		ask.Data = delivery.Sum([]byte(other))
	}
	if other := s.value("made"); other != "" {
		ask.Training = delivery.Sum([]byte(other))
		s.run(delivery.RunSpec{Kind: delivery.RunData, Key: ask.Data, Data: &delivery.DataRun{}},
			delivery.DataResult{Training: ask.Training})
	}
	r := delivery.RunState{Phase: delivery.RunRunning, Attempt: 1, Status: delivery.RunStatus{Phase: "training"},
		Spec: delivery.RunSpec{Kind: delivery.RunTrain, Key: delivery.TrainKey(ask), Train: &ask}}
	if _, err := fmt.Sscanf(s.value("epoch"), "%d/%d", &r.Status.Epoch, &r.Status.Epochs); err != nil {
		s.Fatal(err)
	}
	if r.Need = s.need(); slices.Equal(r.Need.PRs, []int{-1}) {
		r.Need.PRs = nil
	} else if r.Need.PRs == nil {
		r.Need.PRs = []int{3}
	}
	if r.EndReason = s.value("ending"); r.EndReason != "" {
		r.EndRequested = s.At
	}
	s.Runs[r.Spec.Key] = r
}

// abort reads that a fleet fell back.
func (s *scene) abort(what string) {
	b := s.value("of")
	s.Evidence.Aborts = append(s.Evidence.Aborts, delivery.Abort{Fleet: what, Model: s.made[b].model.Name,
		Bundle: bundle(b), Lifts: s.number(s.value("lifts"))})
	back := s.Published[what]
	back.Soak = 0
	s.Published[what], s.Clocks[what] = back, rollout.State{Base: &back.Release}
}

// newer reads statements of a newer aob.
func (s *scene) newer(what string) {
	known := 1
	if k := s.value("known"); k != "" {
		known = s.number(k)
	}
	n := delivery.NewerStatements{Kind: what, Format: s.number(s.value("format")), Known: known, Count: 1}
	s.Evidence.Newer = append(s.Evidence.Newer, n)
}

// upgraded changes the server after the lines before.
func (s *scene) upgraded(what string) {
	later := delivery.Sum([]byte("later"))
	switch what {
	case "trainer":
		s.Server.Trainers = map[string]delivery.Trainer{"tiny@1": {Files: later, Accelerator: "cpu"}}
	case "evaluator":
		s.Server.Protocol = later
	default:
		s.Fatalf("nobody upgrades %s", what)
	}
}

// value takes a value of the line; it is empty where there is none.
func (s *scene) value(key string) string {
	v := s.values[key]
	delete(s.values, key)
	return v
}

// proposal finds a pull request by its number.
func (s *scene) proposal(number string) *plan.Proposal {
	i := slices.IndexFunc(s.Proposals, func(p plan.Proposal) bool { return p.Number == s.number(number) })
	return &s.Proposals[i]
}

// need reads who needs a run, and since when nobody does.
func (s *scene) need() delivery.RunNeed {
	var need delivery.RunNeed
	for _, pr := range strings.Fields(s.value("for")) {
		need.PRs = append(need.PRs, s.number(pr))
	}
	if since := s.value("since"); since != "" {
		d, err := time.ParseDuration(since)
		if err != nil {
			s.Fatal(err)
		}
		need.Since = s.At.Add(-d)
	}
	return need
}

func (s *scene) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// run is done, with a result.
func (s *scene) run(spec delivery.RunSpec, result any) {
	data, err := json.Marshal(result)
	if err != nil {
		s.Fatal(err)
	}
	s.Runs[spec.Key] = delivery.RunState{Spec: spec, Phase: delivery.RunDone, Attempt: 1, Result: data}
}

// model finds the model of a file, and the gates that judge it: main's, and those
// of its own tree.
func (s *scene) model(file string) (delivery.Model, []delivery.Gate) {
	tree, path := split(file)
	m, ok := s.trees[tree].Models.Get(modelOf(path))
	if !ok {
		s.Fatalf("there is no model %s", file)
	}
	var gates []delivery.Gate
	for _, in := range []delivery.Intent{s.Main.Intent, s.trees[tree]} {
		for _, name := range in.Covering(m.Name) {
			gates = append(gates, in.Gates.Of(name))
		}
	}
	return m, gates
}

// content is what an eval set holds for a model.
func content(m delivery.Model, e delivery.EvalSet) delivery.EvalSetContent {
	return delivery.EvalSetContent{EvalSet: e, Images: delivery.DigestOf("images", e),
		Truths: delivery.DigestOf("truths", e), Labels: m.Classes.Names(), Count: 50}
}

func (s *scene) data(file string) (delivery.DataRun, delivery.DataResult) {
	m, gates := s.model(file)
	ask := delivery.DataRun{Dataset: m.Dataset, Classes: m.Classes, Scenes: m.Scenes}
	for _, name := range []string{m.Name, m.RenamedFrom} {
		if main, ok := s.Main.Intent.Models.Get(name); ok && main.Dataset != m.Dataset {
			ask.Before = &main.Dataset
			break
		}
	}
	found := delivery.DataResult{Content: delivery.DigestOf("content", m.Dataset),
		Training: delivery.DigestOf("training", []any{m.Dataset, m.Classes}), Images: map[string]int{"train": 100,
			"valid": 30}}
	for _, g := range gates {
		if !slices.Contains(ask.EvalSets, g.Evaluate) {
			ask.EvalSets, found.EvalSets = append(ask.EvalSets, g.Evaluate), append(found.EvalSets,
				content(m, g.Evaluate))
		}
	}
	return ask, found
}

// counts reads what a data run has found, and reports whether the line says it.
func (s *scene) counts(found *delivery.DataResult) bool {
	none := func(code string) bool { return code == "" }
	for _, code := range slices.DeleteFunc(strings.Split(s.value("warns"), ","), none) {
		found.Findings = append(found.Findings, delivery.Finding{Level: delivery.LevelWarning, Code: code, Count: 1,
			Where: "a place", Text: "about " + code})
	}
	train := s.value("train")
	if train == "" {
		return false
	}
	found.Images = map[string]int{"train": s.number(train), "valid": s.number(s.value("valid"))}
	found.Truths = map[string]int{}
	for pair := range strings.FieldsSeq(s.value("objects")) {
		class, n, _ := strings.Cut(pair, ":")
		found.Truths[class] = s.number(n)
	}
	if other := s.value("content"); other != "" {
		found.Content = delivery.Sum([]byte(other))
	}
	return true
}

func (s *scene) training(file string) delivery.TrainRun {
	m, _ := s.model(file)
	ask, found := s.data(file)
	return delivery.TrainRun{Spec: m.Spec(), Seed: m.Train.Seeds[0], Data: delivery.DataKey(ask),
		Training:    found.Training,
		Trainer:     s.Server.Trainers[m.Train.With].Files,
		Accelerator: "cpu", Machine: m.Train.Machine.Terraform, Limit: m.Train.Machine.Limit}
}

func (s *scene) bundle(letter string) {
	file, b := s.value("of"), bundle(letter)
	m, gates := s.model(file)
	q, err := strconv.ParseFloat(s.value("mAP"), 64)
	if err != nil {
		s.Fatal(err)
	}
	s.made[letter] = made{m, q, map[delivery.EvalSet]delivery.Scores{}}
	like := b
	if twin := s.value("twin"); twin != "" {
		like = bundle(twin)
	}
	info := plan.Bundle{Model: delivery.DigestOf("model", like), Signature: delivery.DigestOf("signature", like),
		Size: 1e6}
	s.Evidence.Bundles[b] = info
	ask := s.training(file)
	t := plan.Trained{Bundle: b, Training: delivery.Training{Run: delivery.TrainKey(ask), Spec: m.SpecDigest(),
		Input: ask, Result: delivery.TrainResult{Bundle: b, Size: info.Size}}}
	if checkpoint := s.value("checkpoint"); checkpoint != "" {
		t.Training.Result.Checkpoint = bundle(checkpoint)
	}
	if licence := s.value("licence"); licence != "" {
		t.Training.Input.Licences = []delivery.Licensed{{Part: "weights old", Licence: licence}}
	}
	if _, found := s.data(file); s.counts(&found) {
		t.Training.Data = found
	}
	s.Evidence.BySpec[m.SpecDigest()], s.Evidence.ByRun[t.Training.Run] = t, t
	s.score(letter, gates)
}

// variantRun makes a variant of a bundle.
func (s *scene) variantRun(of, is string) delivery.VariantRun {
	t, ok := s.Evidence.Training(bundle(of))
	if !ok {
		s.Fatalf("there is no training of %s", of)
	}
	return delivery.VariantRun{Variant: is, Bundle: t.Bundle, Model: s.Evidence.Bundles[t.Bundle].Model,
		Train: t.Training.Input}
}

// variant reads a variant that was made of a bundle.
func (s *scene) variant(letter string) {
	of, b := s.value("of"), bundle(letter)
	ask := s.variantRun(of, s.value("is"))
	q, err := strconv.ParseFloat(s.value("mAP"), 64)
	if err != nil {
		s.Fatal(err)
	}
	faster, err := strconv.ParseFloat(s.value("faster"), 64)
	if err != nil {
		s.Fatal(err)
	}
	s.made[letter] = made{s.made[of].model, q, map[delivery.EvalSet]delivery.Scores{}}
	info := s.Evidence.Bundles[bundle(of)]
	info.Model, info.Size = delivery.DigestOf("model", b), 5e5
	s.Evidence.Bundles[b] = info
	took := 0.01 / faster
	if s.Evidence.Variants == nil {
		s.Evidence.Variants = map[delivery.Digest][]delivery.MadeVariant{}
	}
	s.Evidence.Variants[ask.Bundle] = append(s.Evidence.Variants[ask.Bundle], delivery.MadeVariant{
		Key: delivery.VariantKey(ask), Input: ask, Result: delivery.VariantResult{Bundle: b,
			Model: info.Model, Size: info.Size, Times: delivery.Times{FP32: delivery.Latency{P50: 0.01},
				Variant: delivery.Latency{P50: took}, Rounds: []delivery.Round{{FP32: 0.01, Variant: took}}}}})
	s.score(letter, allGates(s.Main.Intent))
}

// score signs the scores of a bundle on the eval sets of gates.
func (s *scene) score(letter string, gates []delivery.Gate) {
	m, q, b := s.made[letter].model, s.made[letter].mAP, bundle(letter)
	info := s.Evidence.Bundles[b]
	for _, g := range gates {
		c := content(m, g.Evaluate)
		in := delivery.EvalRun{Bundle: b, Model: info.Model, Signature: info.Signature, EvalSet: g.Evaluate,
			Classes: g.LabelMap(m.Classes), Images: c.Images, Truths: c.Truths,
			Protocol: s.Server.Protocol, Detect: delivery.DetectKey(info.Model, info.Signature, c.Images,
				s.Server.Numerics, "cpu")}
		score := delivery.Scores{Key: delivery.ScoreKey(in), Input: in, Content: c,
			Scores: delivery.ScoreSet{Protocol: in.Protocol, Images: c.Count, Classes: m.Classes.Names(),
				Values: map[string]float64{"mAP": q}, Truths: truths(m), Table: tableOf(m, q)}}
		if _, there := s.Evidence.Scores[score.Key]; !there { // a twin's stay those of the first bundle
			s.Evidence.Scores[score.Key] = score
		}
		s.made[letter].scores[g.Evaluate] = score
	}
}

// around is a bootstrap that leaves little doubt.
func around(v float64) []float64 {
	s := make([]float64, 1000)
	for i := range s {
		s[i] = v + 0.01*float64(2*i-999)/999
	}
	return s
}

// tableOf has one AP for every class of a model.
func tableOf(m delivery.Model, ap float64) delivery.Table {
	t := delivery.Table{Images: delivery.Row{Value: 50}, Columns: map[string][]delivery.Row{},
		Classes: m.Classes.Names()}
	for range m.Classes {
		t.Columns["AP"] = append(t.Columns["AP"], delivery.Row{Value: ap, Resamples: around(ap)})
	}
	return t
}

func truths(m delivery.Model) map[string]int {
	n := map[string]int{}
	for _, class := range m.Classes.Names() {
		n[class] = 100
	}
	return n
}

// comparison is the paired bootstrap of two bundles on an eval set.
func (s *scene) comparison(candidate, baseline string, e delivery.EvalSet) (delivery.CompareRun,
	delivery.CompareResult) {
	a, b := s.made[candidate], s.made[baseline]
	return delivery.CompareRun{Candidate: a.scores[e].Input, Baseline: b.scores[e].Input, Resamples: 1000, Seed: 1},
		delivery.CompareResult{Images: 50, Classes: a.model.Classes.Names(), Truths: truths(a.model),
			Candidate: tableOf(a.model, a.mAP).Values(), Baseline: tableOf(a.model, b.mAP).Values(),
			Difference: tableOf(a.model, a.mAP-b.mAP)}
}

// statement signs what a release file says, and the verdicts behind it.
func (s *scene) statement(file string) {
	tree, path := split(file)
	r, ok := s.trees[tree].Releases.Get(modelOf(path))
	if !ok {
		s.Fatalf("there is no release file %s", file)
	}
	judges, baseline, letter := s.Main.Intent, s.value("baseline"), r.Bundle.Hex()[:1]
	if from := s.value("gates"); from != "" {
		judges = s.trees[from]
	}
	statement := delivery.ReleaseStatement{Model: r.Name, Version: r.Version, Spec: r.Spec, Bundle: r.Bundle, File: r}
	for _, name := range judges.Covering(r.Name) {
		g := judges.Gates.Of(name)
		score := s.made[letter].scores[g.Evaluate]
		in := gate.Input{Model: r.Name, Size: 1e6, Classes: s.made[letter].model.Classes.Names(),
			Candidate: gate.Measured{Key: score.Key, Scores: score.Scores}}
		if baseline != "" {
			statement.Baseline = bundle(baseline)
			ask, result := s.comparison(letter, baseline, g.Evaluate)
			old := s.made[baseline].scores[g.Evaluate]
			in.Baseline, in.Compare, in.CompareKey = &gate.Measured{Key: old.Key, Scores: old.Scores}, &result,
				delivery.CompareKey(ask)
		}
		v := gate.Judge(name, g, in)
		s.Evidence.Verdicts[v.Key] = v
		statement.Gates = append(statement.Gates, delivery.GateJudged{Name: name, Spec: g.Digest(), Verdict: v})
	}
	s.Evidence.Releases = append(s.Evidence.Releases, statement)
}

// device is one of a fleet, with a board and a role, which was last heard of so long ago.
func (s *scene) device(name string) {
	heard, of := s.At, s.value("of")
	if ago := s.value("silent"); ago != "" {
		d, err := time.ParseDuration(ago)
		if err != nil {
			s.Fatal(err)
		}
		heard = heard.Add(-d)
	}
	labels := map[string]string{"board": s.value("board"), "role": s.value("role")}
	s.Devices[of] = append(s.Devices[of], delivery.Device{LastHeard: heard, Report: delivery.Report{Device: name,
		Ring: of, Labels: labels, Phase: delivery.DeviceIdle}})
}

// asked is what a device was asked for, and what it answered.
func (s *scene) asked(device string) {
	r := delivery.BenchRequest{Ring: s.value("of"), Device: device, BenchRun: delivery.BenchRun{
		Bundle: bundle(s.value("for")), Profile: s.value("on"), Settings: delivery.GateBench()},
		Expires: s.At.Add(time.Hour)}
	a := delivery.BenchAsked{Request: r}
	switch ms, why := s.value("ms"), s.value("failed"); {
	case ms != "":
		s.values["ms"], s.values["on"] = ms, r.Profile
		b := s.bench(r.Bundle)
		a.Answer = &delivery.BenchAnswer{Key: r.Key(), Bench: &b}
	case why != "":
		a.Answer = &delivery.BenchAnswer{Key: r.Key(), Why: why}
	}
	s.Asked = append(s.Asked, a)
}

// benched is a signed bench of a bundle, whose repeats take so many milliseconds.
func (s *scene) benched(what string) {
	b := s.bench(bundle(what))
	b.Fleet, b.Device = s.value("of"), s.value("by")
	if s.Evidence.Benches == nil {
		s.Evidence.Benches = map[delivery.Digest][]delivery.Bench{}
	}
	s.Evidence.Benches[b.Bundle] = append(s.Evidence.Benches[b.Bundle], b)
}

func (s *scene) bench(of delivery.Digest) delivery.Bench {
	b := delivery.Bench{Model: delivery.Sum([]byte("model")), Hardware: delivery.Sum([]byte("profile")), At: s.At,
		BenchRun: delivery.BenchRun{Bundle: of, Profile: s.value("on"), Settings: delivery.GateBench()},
		Machine:  delivery.BenchMachine{Cores: 6, Threads: 2, Platform: "linux/arm64", PowerMode: s.value("mode")}}
	if s.value("pictures") != "" {
		b.Settings.Pictures = delivery.Sum([]byte("own pictures"))
	}
	if why := s.value("throttled"); why != "" {
		b.Result.Throttled = []string{why}
	}
	for text := range strings.SplitSeq(s.value("ms"), ",") {
		ms, err := strconv.ParseFloat(text, 64)
		if err != nil {
			s.Fatal(err)
		}
		stages := map[string]delivery.BenchTimes{}
		for _, stage := range delivery.BenchStages {
			stages[stage] = delivery.BenchTimes{P50: ms / 1e3, P90: ms / 1e3, P95: ms / 1e3, P99: ms / 1e3}
		}
		b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{Stages: stages, Throughput: 1e3 / ms})
	}
	b.Settings.Repeats, b.Result.Clients = len(b.Result.Repeats), 4
	if err := b.Check(); err != nil {
		s.Fatal(err)
	}
	if n := s.value("later"); n != "" {
		b.At = b.At.Add(time.Duration(s.number(n)) * time.Minute)
	}
	return b
}

func (s *scene) fleet(name string) {
	f, hour := s.Main.Intent.Fleets.Of(name), s.At.Add(-time.Hour)
	model := s.value("model")
	if model == "" {
		model = f.Runs
	}
	to := delivery.Target{Version: s.number(s.value("version")), Bundle: bundle(s.value("runs"))}
	healthy := []delivery.Digest{to.Bundle}
	if before := s.value("before"); before != "" {
		healthy = []delivery.Digest{bundle(before), to.Bundle}
	}
	s.Clocks[name] = rollout.State{Target: to, Wave: len(f.Waves) - 1, Share: 1, Began: hour, Started: hour,
		Healthy: hour, Done: true}
	s.Published[name] = delivery.Desired{Ring: name, Version: 1, Match: f.Match, Model: model, Release: to, Share: 1,
		Salt: rollout.Salt(name, to.Bundle), Soak: f.Soak, Expires: s.At.Add(24 * time.Hour)}
	for id := range strings.FieldsSeq(s.value("devices")) {
		s.Devices[name] = append(s.Devices[name], delivery.Device{LastHeard: s.At, Healthy: healthy,
			Report: delivery.Report{Device: id, Ring: name, Labels: f.Match, Desired: 1, Bundle: to.Bundle,
				Release: to.Version, Phase: delivery.DeviceHealthy}})
	}
}

func allGates(in delivery.Intent) (list []delivery.Gate) {
	for _, g := range in.Gates.All() {
		list = append(list, g)
	}
	return list
}
