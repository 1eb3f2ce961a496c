package plan_test

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
	"github.com/autonomos/aob/tools/hostile"
)

// Text in a world that authors, devices, trainers and datasets write as they like.
var fromOutside = []string{
	"Accept.Because", "Accept.By", "Accept.As", "AcceptComment.Because", "AcceptComment.By", "AcceptComment.Teams",
	"Abort.Why", "Quarantined.Why", "Quarantined.Lifted",
	"PullRequest.Author", "PullRequest.ForkOwner", "PullRequest.HeadRef", "PullRequest.Title", "PullRequest.Unreadable",
	"Complaint.File", "Complaint.Path", "Complaint.Text",
	"Finding.More", "Finding.Places", "Finding.Text", "Finding.Where",
	"Report.Blocked", "Report.Labels", "Report.Why",
	"RunState.Error", "RunState.EndReason", "RunStatus.Message", "RunStatus.Phase",
	"CheckVerdict.Reason", "Verdict.Reason", "Proposal.Foreign", "Proposal.Moved",
	"Proposal.Refused", "Trial.By", "Trial.Note", "Variant.Set",
	"Orphan.Error", "Orphan.ID", "Orphan.Owner", "Orphan.Region", "Orphan.Run",
	"Price.Source", "Quote.By", "Quote.Instance", "Quote.Source", "World.NoPrice",
	"Evidence.Stale", "Main.Unread", "Main.UnreadFleets", "UnreadStatement.Why",
	"Bench.Device", "Bench.Fleet", "BenchAnswer.Why", "BenchEnergy.Source", "BenchMachine.AOB", "BenchMachine.CUDA",
	"BenchMachine.Compute", "BenchMachine.GPU", "BenchMachine.Governor", "BenchMachine.Kernel", "BenchMachine.L4T",
	"BenchMachine.Module", "BenchMachine.Numerics", "BenchMachine.Platform", "BenchMachine.PowerMode",
	"BenchMachine.Processor", "BenchMachine.Runtime", "BenchMachine.TensorRT", "BenchResult.Throttled",
}

// Text in a world that is checked where it is read, made by AOB itself, or compared and never shown.
var checkedOrOwn = []string{
	"BenchRepeat.Stages", "BenchRun.Profile", "BenchRequest.Device", "BenchRequest.Ring",
	"Abort.Fleet", "Abort.Model", "UnreadStatement.Type", "Accept.How", "Acceptance.Commit", "Acceptance.Model",
	"Acceptance.RenamedFrom",
	"After.Fleet", "AcceptComment.Code", "AcceptComment.How", "BaselineMeasured.Metrics", "Budget.Temperature",
	"Budget.Types",
	"Bundle.Classes",
	"index.accepted", "index.of", "index.looksOver", "awaited.gates", "awaited.models", "judgedOn.model",
	"renamedModels.list", "renamedModels.models", "renamedModels.releases",
	"Bundle.Thresholds", "CheckMeasured.Check", "CheckMeasured.Class", "CheckMeasured.Reason",
	"CheckVerdict.Against", "CheckVerdict.Check", "CheckVerdict.Class", "CheckVerdict.Metric",
	"Class.Labels", "Class.Name", "Selection.Names", "DataResult.Folders", "DataResult.Images", "DataResult.Prepared",
	"DataResult.Truths", "Dataset.Path", "Dataset.Source", "Desired.Match",
	"Desired.Model", "Desired.Ring", "Desired.Salt", "Device.Ignored", "EvalRun.Measures", "EvalRun.Thresholds",
	"EvalSet.Group", "EvalSet.Split", "EvalSetContent.Labels", "Evidence.Accepted", "Finding.Code", "Finding.Level",
	"Fleet.APIVersion", "Fleet.Advance", "BenchDevices.Match", "Fleet.Drift", "Fleet.Kind", "Fleet.Match", "Fleet.Mine",
	"Fleet.Name",
	"Fleet.Profiles", "Fleet.Runs", "Fleet.Shadow", "Fleet.Target",
	"Fleet.Variant", "AcceptedVariant.Variant", "Gate.APIVersion", "Gate.Classes", "Gate.Covers",
	"Gate.Kind",
	"Gate.Labels",
	"Gate.Name", "Gate.Owners", "GateCheck.Against", "GateCheck.At", "GateCheck.Except", "GateCheck.Metric",
	"GateCheck.Unsure", "GateJudged.Name", "QuarantineEntry.Lost", "Intent.Files",
	"Intent.Fleets",
	"Intent.Gates", "Intent.Models", "Intent.Quarantines", "Intent.Releases", "Loss.Class", "Loss.Metric",
	"Loss.Why", "LostGate.Commit", "Machine.Instance", "Machine.Spot", "Machine.Terraform",
	"Main.Branch",
	"Main.Commit", "Main.Quarantine", "Main.History", "Main.Repointed", "Loss.Error", "Loss.ErrorClass",
	"Measured.Gate",
	"Measured.Metrics",
	"Model.APIVersion", "Model.Kind", "Model.Name", "Model.Thresholds", "Model.Variants", "Model.RenamedFrom",
	"DataRun.Scenes", "Model.Scenes",
	"NewerStatements.Kind",
	"OperatingPoint.Note", "Optimizer.Name", "Optimizer.Schedule", "Past.Commit", "Place.Boot", "Place.Installation",
	"Place.Receipt", "Profile.Board", "Proposal.Bases", "Proposal.BothChanged", "Proposal.Approvals", "Proposal.Made",
	"Proposal.Undone",
	"Proposal.Waits",
	"PullRequest.Base", "PullRequest.Head",
	"PullRequest.Ref", "PullRequest.URL", "Quarantine.APIVersion", "Quarantine.Kind", "Quarantine.Name",
	"Quarantined.Fleet", "Release.APIVersion", "Release.Kind", "Release.Name", "ReleaseStatement.Model",
	"ReleaseStatement.TargetCommit", "ReleaseStatement.RenamedFrom", "Repoint.Commit", "Repoint.From", "Report.Boot",
	"Report.Device", "Report.Installation", "Report.Receipt", "Report.Ring", "Report.Slot", "Rewound.From",
	"Rewound.To", "RunSpec.Note", "RunState.Stage", "ScoreSet.Classes", "ScoreSet.Truths",
	"ScoreSet.Values", "Server.Numerics", "Server.Provider", "Server.Seed", "Server.Trackers", "Server.Trainers",
	"Server.URL",
	"Spec.Dataset",
	"Spec.Thresholds", "Spec.Variants", "State.Model", "State.Salt", "Stored.Lost", "Table.Classes",
	"Table.Columns", "Table.Overall", "ThresholdResult.Points", "Track.MLflow",
	"ThresholdRun.Ask", "Train.Architecture", "Train.Args", "Train.From", "Train.Precision",
	"Train.With", "TrainRun.Accelerator", "TrainRun.Machine", "Trainer.APIVersion", "Trainer.Accelerator",
	"Trainer.Architectures", "Trainer.Kind", "Trainer.Name", "Trainer.Secrets", "Trainer.Versions",
	"Gate.Licence", "Licensed.Licence", "Licensed.Part", "Server.Weights", "Weights.Licence",
	"Environment.Platform", "Environment.Python", "Trainer.From", "Trainer.Licences", "Trainer.Precisions",
	"Trainer.Unusable", "Trainer.Values", "Trainer.Sizes", "TrainerPython.Max", "TrainerPython.Min",
	"JudgedVariant.Variant", "Parity.Cosine", "Parity.Largest", "ReleasedVariant.Faster",
	"ReleasedVariant.Variant", "Times.Processor", "Times.Provider", "Trainer.Variants", "VariantRun.Variant",
	"Trial.ID", "Trial.Model", "Verdict.Classes", "Verdict.Gate",
	"Verdict.Model", "Window.Days", "Window.From", "Window.To", "Window.Zone",
	"Price.Instance", "Price.Region", "Quote.Basis", "Quote.Model", "Quote.Region", "World.Goers",
	"World.Prices", "Budget.Region",
	"World.PowerOf", "World.Clocks", "World.Devices", "World.Listening", "World.InvalidOwners", "World.Opened",
	"World.Published",
}

// outsider replaces text from outside in a world.
type outsider struct {
	text    string // "" only lists
	fields  map[string]bool
	visited map[reflect.Type]bool
}

// list finds the fields of a type that hold text.
func (o *outsider) list(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		o.list(t.Elem())
	case reflect.Map:
		o.list(t.Key())
		o.list(t.Elem())
	case reflect.Struct:
		// The values of facts are text wherever they are shown: see package words.
		if o.visited[t] || t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[delivery.Fact]() {
			return
		}
		o.visited[t] = true
		if value, ok := ofNamed(t); ok {
			o.list(value)
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if holdsText(f.Type) {
				o.fields[t.Name()+"."+f.Name] = true
			}
			o.list(f.Type)
		}
	}
}

// ofNamed returns the type of the values of a [delivery.Named].
func ofNamed(t reflect.Type) (reflect.Type, bool) {
	if t.Kind() != reflect.Struct || !strings.HasPrefix(t.Name(), "Named[") {
		return nil, false
	}
	of, _ := t.MethodByName("Of")
	return of.Type.Out(0), true
}

func holdsText(t reflect.Type) bool {
	if _, ok := ofNamed(t); ok {
		return true // the names
	}
	switch t.Kind() {
	case reflect.String:
		return t == reflect.TypeFor[string]()
	case reflect.Slice, reflect.Pointer:
		return holdsText(t.Elem())
	case reflect.Map:
		return holdsText(t.Key()) || holdsText(t.Elem())
	}
	return false
}

// put replaces text where there is some.
func (o *outsider) put(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			o.put(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			o.put(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(key))
			o.put(value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		switch named := v.Addr().Interface().(type) {
		case *delivery.Named[string]: // hashes
			return
		case *delivery.Named[delivery.Model]:
			putNamed(o, named)
			return
		case *delivery.Named[delivery.Gate]:
			putNamed(o, named)
			return
		case *delivery.Named[delivery.Fleet]:
			putNamed(o, named)
			return
		case *delivery.Named[delivery.Release]:
			putNamed(o, named)
			return
		case *delivery.Named[delivery.Quarantine]:
			putNamed(o, named)
			return
		}
		for i := range v.NumField() {
			field := v.Field(i)
			if slices.Contains(fromOutside, v.Type().Name()+"."+v.Type().Field(i).Name) {
				o.replace(field)
			} else if field.CanSet() {
				o.put(field)
			}
		}
		// Most cases leave out what people call their work.
		if pr, ok := v.Addr().Interface().(*delivery.PullRequest); ok {
			pr.Title, pr.Author, pr.HeadRef = o.text, o.text, o.text
		}
		if a, ok := v.Addr().Interface().(*delivery.Abort); ok {
			a.Why = o.text
		}
		if r, ok := v.Addr().Interface().(*delivery.Report); ok && r.Failed != "" {
			r.Why = o.text
		}
	}
}

// putNamed replaces text in the values of a Named, which does not change itself.
func putNamed[V any](o *outsider, named *delivery.Named[V]) {
	content := maps.Collect(named.All())
	for name, value := range content {
		o.put(reflect.ValueOf(&value).Elem())
		content[name] = value
	}
	if named.Known() {
		*named = delivery.NamedOf(content)
	}
}

// replace replaces the text of one field.
func (o *outsider) replace(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.Len() > 0 {
			v.SetString(o.text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			o.replace(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			v.SetMapIndex(key, reflect.ValueOf(o.text))
		}
	}
}

// A field that is added to the world is put into one of the lists.
func TestEveryTextOfAWorldIsKnown(t *testing.T) {
	o := &outsider{fields: map[string]bool{}, visited: map[reflect.Type]bool{}}
	o.list(reflect.TypeFor[plan.World]())
	known := slices.Concat(fromOutside, checkedOrOwn)
	for _, field := range slices.Sorted(maps.Keys(o.fields)) {
		if n := strings.Count(" "+strings.Join(known, " ")+" ", " "+field+" "); n != 1 {
			t.Errorf("%s is in %d of the lists of this file; want one: may somebody write into it what they like?",
				field, n)
		}
	}
	for _, field := range known {
		if !o.fields[field] {
			t.Errorf("there is no %s in a world", field)
		}
	}
}

// Whatever people, devices and trainers write, a plan prints as many lines, and what AOB proposes says the same in
// Markdown and in git.
func TestOutsideTextIsEscapedInAPlan(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden cases", err)
	}
	proposed := 0
	for _, path := range paths {
		make := func(text string) plan.Plan {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			w := world(t, a)
			(&outsider{text: text}).put(reflect.ValueOf(&w).Elem())
			return plan.Make(w)
		}
		plain := make(hostile.Harmless)
		lots := 1
		if strings.HasSuffix(path, "09-aborted.txtar") || strings.HasSuffix(path, "09-quarantined-on-main.txtar") {
			lots = 20 // they propose something, and say why
		}
		for _, text := range hostile.Lots(lots) {
			p := make(text)
			if err := hostile.Screen(words.Plan(p)); err != nil {
				t.Errorf("%s, %q: the plan holds %v", path, text[:min(40, len(text))], err)
			}
			if got, want := strings.Count(words.Plan(p), "\n"), strings.Count(words.Plan(plain), "\n"); got != want {
				t.Errorf("%s, %q: the plan has %d lines, where it had %d:\n%s", path, text, got, want, words.Plan(p))
			}
			for k, s := range p.Steps {
				step, ok := s.(plan.Propose)
				if !ok {
					continue
				}
				title, body, message := words.Proposed(step)
				if strings.Contains(body, "the fix") && strings.Contains(message, "the fix") {
					proposed++
				}
				wasTitle, wasBody, wasMessage := words.Proposed(plain.Steps[k].(plan.Propose))
				if err := hostile.Markdown(wasBody, body); err != nil {
					t.Errorf("%s, %q: the description: %v", path, text[:min(40, len(text))], err)
				}
				if err := hostile.Commit(wasTitle+"\n\n"+wasMessage, title+"\n\n"+message); err != nil {
					t.Errorf("%s, %q: the commit: %v", path, text[:min(40, len(text))], err)
				}
				if q := step.Quarantine; q != nil { // its other entries are main's
					if err := hostile.Screen(q.Entries[len(q.Entries)-1].Why); err != nil {
						t.Errorf("%s, %q: the quarantine file: %v", path, text[:min(40, len(text))], err)
					}
				}
			}
		}
	}
	if proposed < 3 {
		t.Errorf("text from outside is in %d of the proposals", proposed)
	}
}
