package intent

import (
	"cmp"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Server is the configuration of aob serve, with defaults filled in. It has no secrets, but the names of environment
// variables and files that have them.
//
// Paths are relative to the folder of the configuration file; see [Server.Resolve].
type Server struct {
	Repository string            `json:"repository" check:"path"`
	Main       string            `json:"main" default:"main" check:"branch"`
	Forge      ServerForge       `json:"forge" default:"{local: {}}" check:"keys=name"`
	State      string            `json:"state" default:"state" check:"path"`
	Listen     ServerListen      `json:"listen"`
	Socket     string            `json:"socket,omitempty" check:"optional,path"`
	Datasets   ServerDatasets    `json:"datasets,omitempty" check:"optional,keys=segment,location"`
	AutoGo     delivery.Money    `json:"autoGo" default:"$0"`
	Poll       ServerPoll        `json:"poll"`
	Fleets     ServerFleets      `json:"fleets"`
	Detector   ServerDetector    `json:"detector"`
	Trainings  int               `json:"trainings" default:"1" check:"min=1,max=1000"`
	Runs       int               `json:"runs,omitempty" check:"optional,min=1,max=1000"`
	Trainers   string            `json:"trainers,omitempty" check:"optional,path"`
	Python     string            `json:"python" default:"/usr/bin/python3" check:"path"`
	Terraform  string            `json:"terraform,omitempty" check:"optional,path"`
	Keys       ServerKeys        `json:"keys"`
	Commits    ServerCommits     `json:"commits"`
	Heartbeat  delivery.Duration `json:"heartbeat" default:"60s" check:"min=5s,max=1h"`
	Devices    ServerDevices     `json:"devices"`
	Retention  ServerRetention   `json:"retention"`

	Secrets map[string]ServerSecret  `json:"secrets,omitempty" check:"optional,keys=variable"`
	Track   ServerTrack              `json:"track,omitempty" check:"optional,keys=segment"`
	Weights map[string]ServerWeights `json:"weights,omitempty" check:"optional,keys=name"`

	Containers ServerContainers `json:"containers"`

	Files string `json:"files,omitempty" check:"optional,location"`

	AWS *ServerAWS `json:"aws,omitempty" check:"optional"`
}

// ServerDatasets are the locations of datasets, by source and name.
type ServerDatasets map[string]map[string]string

// ServerListen is where the server is reached.
type ServerListen struct {
	URL         string `json:"url,omitempty" check:"optional,url"`
	Address     string `json:"address" default:"127.0.0.1:8370" check:"address"`
	Metrics     string `json:"metrics,omitempty" check:"optional,address"`
	Certificate string `json:"certificate,omitempty" check:"optional,path"`
	Key         string `json:"key,omitempty" check:"optional,path"`
}

// ServerPoll is how often the repository and the forge are read.
type ServerPoll struct {
	Git   delivery.Duration `json:"git" default:"5s" check:"min=100ms,max=1h"`
	Forge delivery.Duration `json:"forge" default:"15s" check:"min=100ms,max=1h"`
}

// ServerFleets is how often devices and the server communicate.
type ServerFleets struct {
	Poll     delivery.Duration `json:"poll" default:"2s" check:"min=100ms,max=24h"`
	Expiry   delivery.Duration `json:"expiry" default:"24h" check:"min=1m,max=8760h"`
	Deadline delivery.Duration `json:"deadline" default:"15m" check:"min=1s,max=720h"`
}

// ServerDetector is the process that runs ONNX models.
type ServerDetector struct {
	Binary  string            `json:"binary,omitempty" check:"optional,path"`
	Library string            `json:"library,omitempty" check:"optional,path"`
	Memory  delivery.Bytes    `json:"memory" default:"4GiB" check:"min=256MiB,max=1024GiB"`
	Limit   delivery.Duration `json:"limit" default:"30m" check:"min=1s,max=24h"`

	Profile  string `json:"profile,omitempty" check:"optional,name"`
	Profiles string `json:"profiles,omitempty" check:"optional,path"`
	Engines  string `json:"engines,omitempty" check:"optional,path"`
}

// ServerRetention is how long the server keeps what nothing needs any more. What a release, an open pull request, a
// fleet or a device needs is kept however old it is.
type ServerRetention struct {
	Every        delivery.Duration `json:"every" default:"1h" check:"min=1s,max=720h"`
	Runs         delivery.Duration `json:"runs" default:"30d" check:"min=1s,max=36500d"`
	Bundles      delivery.Duration `json:"bundles" default:"90d" check:"min=1s,max=36500d"`
	Datasets     delivery.Duration `json:"datasets" default:"90d" check:"min=1s,max=36500d"`
	Environments delivery.Duration `json:"environments" default:"90d" check:"min=1s,max=36500d"`
	Posts        delivery.Duration `json:"posts" default:"90d" check:"min=1s,max=36500d"`
	Automatic    bool              `json:"automatic" default:"true"`
}

// ServerKeys are the files of signing keys. Those left out are in the folder
// keys in state, and made at the first start.
type ServerKeys struct {
	Evidence string   `json:"evidence,omitempty" check:"optional,path"`
	Desired  string   `json:"desired,omitempty" check:"optional,path"`
	Trusted  []string `json:"trusted,omitempty" check:"optional,nonempty,path"`
}

// ServerCommits is the author of AOB's commits: release commits, and those of pull requests that AOB opens.
type ServerCommits struct {
	Name       string `json:"name" default:"aob" check:"author"`
	Email      string `json:"email" default:"aob@users.noreply.localhost" check:"email"`
	SigningKey string `json:"signingKey,omitempty" check:"optional,path"`
}

// ServerSecret is where a secret is. Exactly one field is set.
type ServerSecret struct {
	Env  string `json:"env,omitempty" check:"optional,variable"`
	File string `json:"file,omitempty" check:"optional,path"`
}

// ServerTrack are the trackers, by kind and name.
type ServerTrack map[string]map[string]ServerTracker

// Trackers lists the trackers as KIND/NAME, sorted.
func (t ServerTrack) Trackers() []string {
	var list []string
	for kind, trackers := range t {
		for name := range trackers {
			list = append(list, kind+"/"+name)
		}
	}
	slices.Sort(list)
	return list
}

// ServerTracker is where a tracker is, and how AOB logs in. At most one of Bearer and Basic is set.
type ServerTracker struct {
	URL    string `json:"url" check:"url"`
	Bearer string `json:"bearer,omitempty" check:"optional,variable"`
	Basic  string `json:"basic,omitempty" check:"optional,variable"`
}

// trackerKinds are the known kinds of trackers.
var trackerKinds = []string{"mlflow"}

// ServerWeights are base weights that models may start from.
type ServerWeights struct {
	File    string `json:"file" check:"path"`
	SHA256  string `json:"sha256" check:"sha256"`
	Licence string `json:"licence" check:"licence"`
}

// Base returns what plans and statements say of the weights.
func (w ServerWeights) Base() delivery.Weights {
	return delivery.Weights{SHA256: delivery.Digest("sha256:" + w.SHA256), Licence: w.Licence}
}

// ServerContainers are the containers that trainers run in.
type ServerContainers struct {
	Engine    string            `json:"engine,omitempty" check:"optional,path"`
	Images    map[string]string `json:"images,omitempty" check:"optional,keys=trainer,image"`
	Pull      string            `json:"pull" default:"missing" check:"oneof=missing|never"`
	Memory    delivery.Bytes    `json:"memory" default:"16GiB" check:"min=64MiB,max=4096GiB"`
	CPUs      int               `json:"cpus,omitempty" check:"optional,min=1,max=4096"`
	Processes int               `json:"processes" default:"4096" check:"min=16,max=1000000"`
	Device    string            `json:"device,omitempty" check:"optional,device"`
}

// ServerAWS is the account of AWS in which models may be trained.
type ServerAWS struct {
	Controller string            `json:"controller" check:"name"`
	Regions    []string          `json:"regions" check:"nonempty,region"`
	Sweep      delivery.Duration `json:"sweep" default:"5m" check:"min=1s,max=1h"`
	Day        delivery.Money    `json:"day" default:"$50"`
	Month      delivery.Money    `json:"month" default:"$500"`
	Train      *ServerAWSTrain   `json:"train,omitempty" check:"optional"`

	Instances []string `json:"instances" default:"[g4dn.xlarge, g5.xlarge, g6.xlarge]" check:"nonempty,instance"`
}

// AMIName is the name of the images that instances boot where the configuration names none.
const AMIName = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"

// ServerAWSTrain is where instances start. Without it none do.
type ServerAWSTrain struct {
	Account       string `json:"account" check:"account"`
	VPC           string `json:"vpc" check:"vpc"`
	Subnet        string `json:"subnet" check:"subnet"`
	PublicAddress bool   `json:"publicAddress" default:"false"`

	AMI      string         `json:"ami,omitempty" check:"optional,ami"`
	AMIOwner string         `json:"amiOwner" default:"amazon" check:"amiOwner"`
	AMIName  string         `json:"amiName,omitempty" check:"optional,amiName"` // "" is [AMIName]
	Disk     delivery.Bytes `json:"disk" default:"150GiB" check:"min=30GiB,max=2000GiB"`

	Runs                string `json:"runs" check:"bucket"`
	States              string `json:"states" check:"bucket"`
	PermissionsBoundary string `json:"permissionsBoundary,omitempty" check:"optional,policy"`
	ScheduleGroup       string `json:"scheduleGroup" default:"default" check:"group"`
	Providers           string `json:"providers" check:"path"`
}

// ServerDevices is how devices authenticate.
type ServerDevices struct {
	SecretEnv  string `json:"secretEnv,omitempty" check:"optional,variable"`
	SecretFile string `json:"secretFile,omitempty" check:"optional,path"`
}

// ParseServer reads the server's configuration as strictly as other files. Complaints do not repeat possible secrets.
// sources are the known sources of datasets, and forges the known kinds of forge; nil allows any.
func ParseServer(file string, data []byte, sources, forges []string) (Server, []delivery.Complaint) {
	d := &document{file: file}
	var s Server
	if d.open(File{Path: file, Size: int64(len(data)), Data: data}) {
		d.secrets(d.top, "")
		d.decode(&s)
		d.server(s, forges)
		d.sources(s.Datasets, sources)
	}
	list := d.complaints()
	if len(list) > 0 {
		return Server{}, list
	}
	return s, nil
}

var secretKey = regexp.MustCompile(
	`(?i)(token|secret|password|passphrase|credential)s?$|^(api|access|private|signing)_?key$`)

// signingKey has the path of a file, not a key.
const signingKey = "commits.signingKey"

// secrets removes keys with a secret from the nodes, so that no later complaint repeats it, and complains about them.
func (d *document) secrets(n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := member(path, key.Value)
		isMap := value.Kind == yaml.MappingNode
		switch {
		case path == "secrets" && !isMap:
			d.fault(placeOf(key), at, "a secret does not belong in this file; want {env: VARIABLE} or {file: PATH}")
		case at == signingKey && strings.Contains(value.Value, "PRIVATE KEY"):
			d.fault(placeOf(key), at, "a private key does not belong in this file; want the path of its file")
		case at != signingKey && path != "secrets" && (at != "secrets" || !isMap) && secretKey.MatchString(key.Value):
			stem := "token"
			if key.Value == "webhookSecret" {
				stem = key.Value
			}
			d.fault(placeOf(key), at,
				"a secret does not belong in this file; want %sEnv: NAME, of an environment variable, or %sFile: PATH",
				stem, stem)
		default:
			d.secrets(value, at)
			kept = append(kept, key, value)
		}
	}
	n.Content = kept
}

// server checks the rules between the configuration's fields.
func (d *document) server(s Server, forges []string) {
	if d.valid("repository") && hasPassword(s.Repository) {
		d.complain("repository",
			"a secret does not belong in an address; want it without name and password, and the token in forge")
	}
	if d.valid("forge") {
		d.forge(s.Forge, forges)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Weights)) {
		if name == delivery.StartNone || name == delivery.StartRelease {
			d.complain(member("weights", name), "has another meaning in train.from; choose another name")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Secrets)) {
		d.oneOf(member("secrets", name), "env", s.Secrets[name].Env, "file", s.Secrets[name].File, true)
	}
	if d.valid("files") && s.Files != "" {
		if !strings.HasPrefix(s.Files, "s3://") {
			d.complain("files", "want s3://BUCKET/PREFIX; without it the state folder has these files")
		} else if hasPassword(s.Files) {
			d.complain("files", "a secret does not belong in an address; want secrets=NAME, a name under secrets:")
		}
	}
	d.track(s)
	d.aws(s.AWS)
	d.oneOf("devices", "secretEnv", s.Devices.SecretEnv, "secretFile", s.Devices.SecretFile, false)
	if d.valid("listen") && (s.Listen.Certificate == "") != (s.Listen.Key == "") {
		d.complain("listen", "want certificate and key together, or neither")
	}
}

// aws checks that where instances start belongs together.
func (d *document) aws(a *ServerAWS) {
	if a == nil || !d.valid("aws") {
		return
	}
	unique(d, a.Instances, "aws.instances")
	t := a.Train
	if t == nil {
		return
	}
	for _, key := range []string{"amiOwner", "amiName"} {
		if at := member("aws.train", key); t.AMI != "" && d.has(at) {
			d.complain(at, "ami names the image already; remove one of them")
		}
	}
	if arn := t.PermissionsBoundary; arn != "" && strings.Split(arn, ":")[4] != t.Account {
		d.complain("aws.train.permissionsBoundary", "is of account %s, and aws.train.account is %s",
			strings.Split(arn, ":")[4], t.Account)
	}
}

// track complains about unknown kinds of trackers, and about secrets that are not under secrets:.
func (d *document) track(s Server) {
	for _, kind := range slices.Sorted(maps.Keys(s.Track)) {
		at := member("track", kind)
		if !slices.Contains(trackerKinds, kind) {
			d.complain(at, "%s", unknown("kind of tracker", kind, trackerKinds))
		}
		for _, name := range slices.Sorted(maps.Keys(s.Track[kind])) {
			at, t := member(at, name), s.Track[kind][name]
			d.oneOf(at, "bearer", t.Bearer, "basic", t.Basic, false)
			for key, secret := range map[string]string{"bearer": t.Bearer, "basic": t.Basic} {
				if _, known := s.Secrets[secret]; secret != "" && !known && d.valid(at, "secrets") {
					d.complain(member(at, key), "secrets: has no %s; add secrets: {%s: {file: PATH}}", secret, secret)
				}
			}
		}
	}
}

// sources complains about unknown sources, and about passwords in locations.
func (d *document) sources(datasets ServerDatasets, known []string) {
	for _, source := range slices.Sorted(maps.Keys(datasets)) {
		at := member("datasets", source)
		if len(known) > 0 && !slices.Contains(known, source) {
			d.complain(at, "%s", unknown("source", source, known))
		}
		for _, name := range slices.Sorted(maps.Keys(datasets[source])) {
			if hasPassword(datasets[source][name]) {
				d.complain(member(at, name),
					"a secret does not belong in an address; want it without name and password")
			}
		}
	}
}

// oneOf complains if both of two alternative keys have a value, or neither.
func (d *document) oneOf(path, a, va, b, vb string, must bool) {
	switch {
	case !d.valid(path):
	case va != "" && vb != "":
		d.complain(path, "want %s or %s, got both", a, b)
	case va == "" && vb == "" && must:
		d.complain(path, "want %s or %s", a, b)
	}
}

// hasPassword reports whether an address has a password, or a token as its user. An SSH address may have a user.
func hasPassword(address string) bool {
	_, rest, ok := strings.Cut(address, "://")
	if !ok {
		return false
	}
	host, _, _ := strings.Cut(rest, "/")
	user, _, ok := strings.Cut(host, "@")
	return ok && (strings.Contains(user, ":") || !strings.HasPrefix(address, "ssh://"))
}

// Resolve returns the configuration with absolute paths: relative ones are joined to folder, and the defaults in state
// are filled in. Paths of programs that are searched for stay empty.
func (s Server) Resolve(folder string) Server {
	join := func(base, name string) string {
		if name == "" || path.IsAbs(name) {
			return name
		}
		return path.Join(base, name)
	}
	s.State = join(folder, s.State)
	fill := func(name *string, standard string) {
		if *name == "" {
			*name = path.Join(s.State, standard)
		}
		*name = join(folder, *name)
	}
	fill(&s.Socket, "aob.sock")
	fill(&s.Keys.Evidence, "keys/evidence.key")
	fill(&s.Keys.Desired, "keys/desired.key")
	if s.Devices.SecretEnv == "" {
		fill(&s.Devices.SecretFile, "fleet.secret")
	}
	if !strings.Contains(s.Repository, ":") { // no address
		s.Repository = join(folder, s.Repository)
	}
	for _, name := range []*string{&s.Listen.Certificate, &s.Listen.Key, &s.Commits.SigningKey, &s.Trainers,
		&s.Detector.Binary, &s.Detector.Library, &s.Detector.Profiles, &s.Detector.Engines, &s.Terraform} {
		*name = join(folder, *name)
	}
	for _, program := range []*string{&s.Python, &s.Containers.Engine} {
		if strings.Contains(*program, "/") {
			*program = join(folder, *program)
		}
	}
	s.Keys.Trusted = append([]string{}, s.Keys.Trusted...)
	for i, name := range s.Keys.Trusted {
		s.Keys.Trusted[i] = join(folder, name)
	}
	s.Forge = maps.Clone(s.Forge)
	for kind, f := range s.Forge {
		f.TokenFile, f.WebhookSecretFile = join(folder, f.TokenFile), join(folder, f.WebhookSecretFile)
		if f.App != nil {
			app := *f.App
			app.KeyFile = join(folder, app.KeyFile)
			f.App = &app
		}
		s.Forge[kind] = f
	}
	s.Weights = maps.Clone(s.Weights)
	for name, w := range s.Weights {
		w.File = join(folder, w.File)
		s.Weights[name] = w
	}
	if s.AWS != nil && s.AWS.Train != nil {
		aws, train := *s.AWS, *s.AWS.Train
		train.AMIName = cmp.Or(train.AMIName, AMIName)
		train.Providers = join(folder, train.Providers)
		aws.Train, s.AWS = &train, &aws
	}
	s.Secrets = maps.Clone(s.Secrets)
	for name, at := range s.Secrets {
		at.File = join(folder, at.File)
		s.Secrets[name] = at
	}
	return s
}
