package main

// This file checks what a server needs around it: tools, datasets, disk, clock, repository and forge.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/work"
)

func newDoctorCommand() *cobra.Command {
	var o output
	var config string
	var onlyAWS, fix bool
	c := &cobra.Command{
		Use:   "doctor --config FILE",
		Short: "Check what the server needs around it, and say what to do",
		Long: `Doctor checks what aob serve needs: the tools that train and evaluate, the locations of
datasets, free disk space, the clock, the trackers, the repository, and on the forge the token, what
AOB may do, the webhook, branch protection and the owners of gates. It changes nothing,
and works beside a running server. The exit status is 1 if something is wrong.

With --fix it prints a shell script in place of the list: what is wrong as comments, and the
commands that set it right, as far as commands can. It runs none of them.

With --aws it checks what trainings on instances of AWS need, and nothing else: credentials,
each permission, the subnet's way to S3, buckets, the image, quotas, prices and Terraform's
provider. See docs/aws.md.`,
		Example: "  aob doctor --config aob.yaml\n" +
			"  aob doctor --config aob.yaml --aws\n" +
			"  aob doctor --config aob.yaml --fix > fix.sh    # read it before you run it: sh fix.sh\n" +
			"  aob doctor --config aob.yaml -o json | jq '.[] | select(.state == \"failed\")'",
		RunE: func(c *cobra.Command, _ []string) error {
			list := diagnose(c.Context(), config, onlyAWS)
			show := func(t *terminal) { t.diagnoses(list) }
			if fix {
				show = func(t *terminal) { t.fixes(list) }
			}
			if err := o.print(c.OutOrStdout(), list, show); err != nil {
				return err
			}
			failed := 0
			for _, d := range list {
				if d.State == diagnosisFailed {
					failed++
				}
			}
			if failed > 0 {
				return fmt.Errorf("%s failed", delivery.Count(failed, "check"))
			}
			return nil
		},
	}
	o.register(c)
	c.Flags().StringVar(&config, "config", "aob.yaml", "the server's configuration `file`")
	c.Flags().BoolVar(&fix, "fix", false, "print the commands that set right what is wrong")
	c.Flags().BoolVar(&onlyAWS, "aws", false, "check what trainings on instances of AWS need, and nothing else")
	return c
}

// A diagnosis is the result of one check.
type diagnosis struct {
	Check string   `json:"check"`
	State string   `json:"state"` // ok, unknown, warning or failed
	Text  string   `json:"text"`
	Do    string   `json:"do,omitempty"`
	Fix   []string `json:"fix,omitempty"` // commands for a shell that do it
}

const (
	diagnosisOK      = "ok"
	diagnosisUnknown = "unknown"
	diagnosisWarning = "warning"
	diagnosisFailed  = "failed"
)

// settingStates are what settings of the forge are as diagnoses.
var settingStates = map[delivery.SettingState]string{delivery.SettingRight: diagnosisOK,
	delivery.SettingUnknown: diagnosisUnknown, delivery.SettingRisky: diagnosisWarning,
	delivery.SettingUnsafe: diagnosisFailed, delivery.SettingWrong: diagnosisFailed}

// diagnosed is the diagnosis of an error, or else of a text.
func diagnosed(check, text string, err error) diagnosis {
	d := diagnosis{Check: check, State: diagnosisOK, Text: text}
	if err == nil {
		return d
	}
	d.State, d.Text = diagnosisFailed, err.Error()
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		d.Text, d.Do = strings.TrimSuffix(d.Text, "; "+b.Do), b.Do
	} else if h, ok := errors.AsType[hinted](err); ok {
		d.Do = h.hint
	}
	return d
}

// diagnose checks all that the server of a configuration needs, or its account of AWS alone.
func diagnose(ctx context.Context, config string, onlyAWS bool) []diagnosis {
	s, err := loadServer(config)
	if bad, ok := errors.AsType[delivery.Complaints](err); ok {
		var list []diagnosis
		for _, c := range bad {
			list = append(list, diagnosis{Check: "configuration", State: diagnosisFailed, Text: c.String()})
		}
		return list
	}
	list := []diagnosis{diagnosed("configuration", config+" can be read", err)}
	if err != nil {
		return list
	}
	if onlyAWS {
		if s.AWS == nil || s.AWS.Train == nil {
			return append(list, diagnosed("aws", "", delivery.Blockedf("add aws: with train: to "+config+
				", as docs/aws.md shows", "the configuration names no place where instances start")))
		}
		return append(list, diagnoseAWS(ctx, s)...)
	}
	list = append(list, diagnoseMachine(ctx, s)...)
	list = append(list, diagnoseAddresses(s)...)
	list = append(list, diagnoseTrackers(ctx, s)...)
	list = append(list, diagnoseAWS(ctx, s)...)
	return append(list, diagnoseForge(ctx, s)...)
}

// builtinModules are what the built-in trainers import.
var builtinModules = []string{"numpy", "PIL", "torch", "torchvision", "onnx"}

// diagnoseMachine checks what the server needs on its own machine.
func diagnoseMachine(ctx context.Context, s intent.Server) []diagnosis {
	var list []diagnosis
	add := func(check, text string, err error) { list = append(list, diagnosed(check, text, err)) }
	terraform, err := findTerraform(s)
	if err == nil {
		_, err = os.Stat(terraform)
	}
	add("terraform", terraform, err)

	modules := builtinModules
	if s.Trainers != "" {
		modules = nil // what the server's own trainers import is not known
	}
	add("python", s.Python, pythonHas(ctx, s.Python, modules...))

	_, err = detectorOf(s).Find()
	add("detector", "aob-detect and ONNX Runtime are there", err)
	if s.Detector.Profile != "" {
		provider, err := detectorOf(s).Provider(ctx)
		add("profile "+s.Detector.Profile, "computes with "+provider, err)
	}

	trainers, err := loadTrainers(s.Trainers)
	if err == nil {
		err = checkTrainerSecrets(s, trainers)
	}
	add("trainers", delivery.Count(len(trainers), "trainer"), err)
	if s.Files != "" {
		add("files", s.Files, haveSecrets(s, filesSecrets(s)))
	}
	list = append(list, diagnoseEnvironments(ctx, s, trainers)...)

	for _, name := range slices.Sorted(maps.Keys(s.Weights)) {
		w := s.Weights[name]
		err := work.CheckFile(w.File, w.Base().SHA256)
		if err != nil {
			err = delivery.Blockedf("put the right file there, or correct weights: in the configuration", "%s %v",
				w.File, err)
		}
		add("weights "+name, w.File+", "+w.Licence, err)
	}
	for _, source := range slices.Sorted(maps.Keys(s.Datasets)) {
		for _, name := range slices.Sorted(maps.Keys(s.Datasets[source])) {
			ctx, cancel := context.WithTimeout(ctx, sourcePatience)
			text, err := datasets(s).CheckLocation(ctx, source, name)
			cancel()
			add("dataset "+source+":"+name, text, err)
		}
	}
	return append(list, diagnoseDisk(s.State))
}

// gpuFiles are there where CUDA has a GPU: a driver's device, that of a Jetson, and that of Windows' Linux.
var gpuFiles = []string{"/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg"}

// diagnoseEnvironments says whether the packages of trainers are installed. Those that are not cost no more than the
// first training's time, but for a disk without room.
func diagnoseEnvironments(ctx context.Context, s intent.Server, trainers intent.Trainers) (list []diagnosis) {
	e, err := environmentsOf(s)
	if err != nil {
		return []diagnosis{diagnosed("trainers", "", err)}
	}
	e.Fill(ctx, trainers)
	set := trainerSet{trainers: trainers, environments: e, containers: containersOf(s)}
	if set.files, err = trainerFiles(s.Trainers); err != nil {
		return []diagnosis{diagnosed("trainers", "", err)}
	}
	if err := set.containers.Fill(trainers); err != nil {
		return []diagnosis{diagnosed("trainers", "", err)}
	}
	hasGPU := slices.ContainsFunc(gpuFiles, func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	})
	for _, with := range slices.Sorted(maps.Keys(trainers)) {
		state := set.state(ctx, with)
		d := diagnosis{Check: "trainer " + with, State: diagnosisOK, Text: state.Text}
		switch state.State {
		case trainerReady:
			continue
		case trainerInstalled:
			if state.Accelerator == "cuda" && !hasGPU && (s.AWS == nil || s.AWS.Train == nil) {
				d.State = diagnosisWarning
				d.Text += "; this machine has no NVIDIA GPU, and on its CPU a real training takes days"
				d.Do = "use a machine with a GPU, or instances of AWS as docs/aws.md says; to see that all is in " +
					"place, a small resolution and few epochs are enough"
			}
		case trainerUnusable:
			d.State = diagnosisWarning // other trainers work
		case trainerMissing:
			if free, err := durable.FreeSpace(e.Dir); err == nil && free < int64(state.Disk) {
				d.State, d.Do = diagnosisWarning, "free some space in "+e.Dir+" before a model uses it"
			}
		}
		list = append(list, d)
	}
	return list
}

// sourcePatience is how long a source of datasets may take to answer.
const sourcePatience = 20 * time.Second

// Free disk space below which trainings are likely to fail.
const (
	diskLow   = 10 << 30
	diskEmpty = 1 << 30
)

func diagnoseDisk(folder string) diagnosis {
	free, err := durable.FreeSpace(folder) // the first start makes the folder
	d := diagnosed("disk", fmt.Sprintf("%.1f GiB free for %s", float64(free)/(1<<30), folder), err)
	if err == nil && free < diskLow {
		d.State, d.Do = diagnosisWarning, "free some: runs, bundles and fetched datasets are stored there"
		if free < diskEmpty {
			d.State = diagnosisFailed
		}
	}
	return d
}

// diagnoseAddresses checks whether a server is running, and if not, whether its addresses are free.
func diagnoseAddresses(s intent.Server) []diagnosis {
	lock, err := durable.TryLock(state(s.State).path("serve.lock"))
	switch {
	case errors.Is(err, durable.ErrLocked):
		return []diagnosis{{Check: "server", State: diagnosisOK, Text: "aob serve works in " + s.State}}
	case err == nil:
		err = lock.Unlock()
	case errors.Is(err, fs.ErrNotExist): // before the first start
		err = nil
	}
	list := []diagnosis{diagnosed("server", "no aob serve works in "+s.State, err)}
	for _, address := range []string{s.Listen.Address, s.Listen.Metrics} {
		if address == "" {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err == nil {
			err = l.Close()
		} else {
			err = delivery.Blockedf("end what uses it, or change it under listen: in the configuration",
				"aob serve cannot listen on %s: %s", address, err)
		}
		list = append(list, diagnosed("address "+address, "free", err))
	}
	return list
}

// forgePatience is how long the forge and the repository may take to answer.
const forgePatience = time.Minute

// maxSkew is how much the clocks of the server and of the forge may differ.
const maxSkew = time.Minute

// diagnoseForge checks the repository and the forge.
func diagnoseForge(ctx context.Context, s intent.Server) (list []diagnosis) {
	ctx, cancel := context.WithTimeout(ctx, forgePatience)
	defer cancel()
	add := func(check, text string, err error) { list = append(list, diagnosed(check, text, err)) }
	kind, settings := s.Forge.Kind()
	if err := checkToken(kind, settings); err != nil {
		add("token", "", err)
		return list
	}
	app, err := appOf(settings)
	if err != nil {
		add("forge", "", err)
		return list
	}
	main, at, unread := readMain(ctx, s, app)
	c, err := connect(s, app, forge.Settings{Main: s.Main, Address: s.Repository}, newLog())
	if err != nil {
		add("forge", "", err)
		return list
	}
	setup, err := c.Forge.Check(ctx)
	now := time.Now()
	if unread == nil || err == nil && len(setup.Problems()) == 0 { // else the forge says why it cannot be read
		add("repository", fmt.Sprintf("branch %s can be read: %s, %s, %s", s.Main, delivery.Count(main.Models.Len(),
			"model"), delivery.Count(main.Gates.Len(), "gate"), delivery.Count(main.Fleets.Len(), "fleet")), unread)
	}
	if err != nil {
		add("forge", "", err)
	}
	if settings.URL == "" && unread != nil {
		setup.Settings = nil // the local forge is the repository, which is not there
	}
	for _, one := range setup.Settings {
		list = append(list, diagnosis{Check: one.Check, State: settingStates[one.State], Text: one.Text, Do: one.Do,
			Fix: one.Fix})
	}
	if settings.URL != "" && c.Webhook == nil {
		list = append(list, diagnosis{Check: "webhook", State: diagnosisWarning, Text: fmt.Sprintf("no webhook is "+
			"accepted, so aob notices changes only every %s", s.Poll.Forge), Do: fmt.Sprintf("set "+
			"forge.%s.webhookSecretFile, and add the webhook (docs/%[1]s.md)", kind)})
	}
	if err == nil {
		list = append(list, diagnoseOwners(ctx, c.Forge, main, len(setup.Problems()) > 0)...)
	}
	return append(list, diagnoseClock(now, at, setup.Now))
}

// readMain reads main's files, with a mirror of its own: a running server uses the one in the state folder.
func readMain(ctx context.Context, s intent.Server, app *forge.App) (in delivery.Intent, at time.Time, err error) {
	dir, err := os.MkdirTemp("", "aob-doctor-")
	if err != nil {
		return in, at, err
	}
	defer os.RemoveAll(dir)
	kind, settings := s.Forge.Kind()
	mirror, err := git.Open(dir, git.Remote{URL: s.Repository,
		Auth:      gitAuth(kind, settings, app, newLog()),
		Transport: git.Transport(),
		Main:      s.Main, Pulls: forge.Kinds[kind].Pulls})
	if err != nil {
		return in, at, err
	}
	defer func() { err = errors.Join(err, mirror.Close()) }()
	refs, _, err := mirror.Observe(ctx)
	if err != nil {
		return in, at, err
	}
	head := refs[git.Branch+s.Main]
	if head == "" {
		return in, at, delivery.Blockedf("push it, or name another one with main: in the configuration",
			"%s has no branch %s", redacted(s.Repository), s.Main)
	}
	if _, _, at, err = mirror.Author(head); err != nil {
		return in, at, err
	}
	listed, err := mirror.Files(head)
	if err != nil {
		return in, at, err
	}
	var files []intent.File
	for _, f := range listed {
		file := intent.File{Path: f.Path, Mode: f.Mode, Size: f.Size}
		if f.Mode.IsRegular() && f.Size <= intent.MaxFileSize {
			if file.Data, err = mirror.Blob(f.Hash, intent.MaxFileSize); err != nil {
				return in, at, err
			}
		}
		files = append(files, file)
	}
	trainers, err := loadTrainers(s.Trainers)
	if err != nil {
		return in, at, err
	}
	in, complaints := intent.Parse(files, intent.Options{Trainers: trainers, Datasets: datasetNames(s),
		Trackers: append([]string{}, s.Track.Trackers()...), Instances: append([]string{}, instancesOf(s)...),
		Zone: knownZone})
	if len(complaints) > 0 {
		return in, at, delivery.Blockedf("correct it on "+s.Main, "%s (and %d more)", complaints[0], len(complaints)-1)
	}
	return in, at, nil
}

// diagnoseOwners checks that somebody can accept the unsure verdicts of each gate. said: it is known what keeps AOB
// from asking the forge, and need not be said again.
func diagnoseOwners(ctx context.Context, f forge.Forge, main delivery.Intent, said bool) (list []diagnosis) {
	for _, name := range main.Gates.Names() {
		check := "owners of gate " + name
		owners := main.Gates.Of(name).Owners
		if len(owners) == 0 {
			list = append(list, diagnosis{Check: check, State: diagnosisWarning, Text: "it has none, so nobody can " +
				"accept an unsure verdict of it", Do: "add owners: to gates/" + name + ".yaml"})
			continue
		}
		for _, owner := range owners {
			problem, err := f.Owner(ctx, owner)
			if err != nil && said {
				continue
			}
			if err == nil && problem != "" {
				err = delivery.Blockedf("correct owners: in gates/"+name+".yaml", "%s is %s", owner, problem)
			}
			list = append(list, diagnosed(check, owner, err))
		}
	}
	return list
}

// diagnoseClock compares this machine's clock with the time of main's last commit, and with the forge's clock.
func diagnoseClock(now, commit, there time.Time) diagnosis {
	var err error
	const do = "set the clock, as with NTP"
	switch skew := now.Sub(there).Round(time.Second); {
	case !there.IsZero() && skew.Abs() > maxSkew:
		err = delivery.Blockedf(do, "the clocks of this machine and of the forge differ by %s", skew.Abs())
	case commit.Sub(now) > maxSkew:
		err = delivery.Blockedf(do, "the clock is behind: main's last commit is from %s",
			commit.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return diagnosed("clock", now.UTC().Format("2006-01-02 15:04 UTC"), err)
}

func (t *terminal) diagnoses(list []diagnosis) {
	styles := map[string]style{diagnosisOK: green, diagnosisUnknown: yellow, diagnosisWarning: yellow,
		diagnosisFailed: red}
	for _, d := range list {
		state := t.styled(styles[d.State], d.State) + safeText(strings.Repeat(" ", 8-len(d.State)))
		t.item(state, "        ", d.Check+": "+d.Text)
		if d.Do != "" && d.State != diagnosisOK {
			t.paragraph("        ", "-> "+d.Do)
		}
	}
}

// fixes prints a script for a shell: what is wrong as comments, with the commands that set it right.
func (t *terminal) fixes(list []diagnosis) {
	for _, d := range list {
		if d.State == diagnosisOK || d.Do == "" {
			continue
		}
		t.printf("# %s: %s\n", d.Check, d.Text)
		if len(d.Fix) == 0 {
			t.printf("# -> %s\n", d.Do)
		}
		for _, command := range d.Fix {
			t.printf("%s\n", command)
		}
	}
}

// logDiagnoses logs what is wrong on the server's own machine. The loop itself says what is wrong with the forge.
func logDiagnoses(ctx context.Context, s intent.Server, log *slog.Logger) {
	for _, d := range diagnoseMachine(ctx, s) {
		if d.State != diagnosisOK && ctx.Err() == nil {
			log.Warn("aob doctor: "+d.Check, "problem", d.Text, "hint", d.Do)
		}
	}
}
