package intent_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

func TestServerDefaults(t *testing.T) {
	got, complaints := intent.ParseServer("aob.yaml", []byte("repository: intent.git\n"), nil, nil)
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	got = got.Resolve("/srv/aob")
	want := intent.Server{
		Repository: "/srv/aob/intent.git",
		Main:       "main",
		Forge:      intent.ServerForge{"local": {}},
		State:      "/srv/aob/state",
		Listen:     intent.ServerListen{Address: "127.0.0.1:8370"},
		Socket:     "/srv/aob/state/aob.sock",
		Poll:       intent.ServerPoll{Git: seconds(5), Forge: seconds(15)},
		Fleets:     intent.ServerFleets{Poll: seconds(2), Expiry: hours(24), Deadline: seconds(900)},
		Detector:   intent.ServerDetector{Memory: 4 << 30, Limit: seconds(1800)},
		Trainings:  1,
		Python:     "/usr/bin/python3",
		Keys: intent.ServerKeys{Evidence: "/srv/aob/state/keys/evidence.key",
			Desired: "/srv/aob/state/keys/desired.key", Trusted: []string{}},
		Heartbeat: seconds(60),
		Devices:   intent.ServerDevices{SecretFile: "/srv/aob/state/fleet.secret"},
		Retention: intent.ServerRetention{Every: hours(1), Runs: hours(30 * 24), Bundles: hours(90 * 24),
			Datasets: hours(90 * 24), Environments: hours(90 * 24), Posts: hours(90 * 24), Automatic: true},
		Commits:    intent.ServerCommits{Name: "aob", Email: "aob@users.noreply.localhost"},
		Containers: intent.ServerContainers{Pull: "missing", Memory: 16 << 30, Processes: 4096},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func seconds(s float64) delivery.Duration { return delivery.Duration(s * 1e9) }

func TestServerInFull(t *testing.T) {
	got, complaints := intent.ParseServer("aob.yaml", []byte(`
repository: https://gitea.example.com/acme/intent.git
main: release/2026
forge: {gitea: {url: "https://gitea.example.com/", repo: acme/intent, tokenEnv: AOB_TOKEN,
  webhookSecretFile: hook.secret}}
state: /var/lib/aob
listen: {address: "[::]:8370", certificate: tls/cert.pem, key: tls/key.pem}
socket: /run/aob.sock
datasets: {dir: {shapes: /srv/data/shapes, gold-3: /srv/data/gold}}
trainings: 4
poll: {git: 500ms, forge: 1m}
fleets: {poll: 10s, expiry: 7d, deadline: 1h}
detector: {binary: bin/aob-detect, library: lib/libonnxruntime.so, memory: 2GiB, limit: 10m}
trainers: trainers
python: venv/bin/python
terraform: /usr/local/bin/terraform
keys: {evidence: e.key, desired: /k/d.key, trusted: [old.pub]}
heartbeat: 30s
devices: {secretEnv: FLEET_SECRET}
retention: {every: 6h, runs: 7d, bundles: 14d, datasets: 2d, environments: 3d, posts: 4d, automatic: false}
commits: {name: AOB of Acme, email: aob@acme.example, signingKey: commits.key}
secrets: {MLFLOW: {file: mlflow.token}}
track: {mlflow: {default: {url: "https://mlflow.example.com/ml", bearer: MLFLOW}}}
`), nil, nil)
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	got = got.Resolve("/etc/aob")
	want := intent.Server{
		Containers: intent.ServerContainers{Pull: "missing", Memory: 16 << 30, Processes: 4096},
		Repository: "https://gitea.example.com/acme/intent.git",
		Main:       "release/2026",
		Forge: intent.ServerForge{"gitea": {URL: "https://gitea.example.com/", Repo: "acme/intent",
			TokenEnv: "AOB_TOKEN", WebhookSecretFile: "/etc/aob/hook.secret"}},
		State: "/var/lib/aob",
		Listen: intent.ServerListen{Address: "[::]:8370", Certificate: "/etc/aob/tls/cert.pem",
			Key: "/etc/aob/tls/key.pem"},
		Socket: "/run/aob.sock",
		Datasets: intent.ServerDatasets{"dir": {"shapes": "/srv/data/shapes",
			"gold-3": "/srv/data/gold"}},
		Poll:   intent.ServerPoll{Git: seconds(0.5), Forge: seconds(60)},
		Fleets: intent.ServerFleets{Poll: seconds(10), Expiry: hours(168), Deadline: hours(1)},
		Detector: intent.ServerDetector{Binary: "/etc/aob/bin/aob-detect", Library: "/etc/aob/lib/libonnxruntime.so",
			Memory: 2 << 30, Limit: seconds(600)},
		Trainings: 4,
		Trainers:  "/etc/aob/trainers",
		Python:    "/etc/aob/venv/bin/python",
		Terraform: "/usr/local/bin/terraform",
		Keys: intent.ServerKeys{Evidence: "/etc/aob/e.key", Desired: "/k/d.key",
			Trusted: []string{"/etc/aob/old.pub"}},
		Heartbeat: seconds(30),
		Devices:   intent.ServerDevices{SecretEnv: "FLEET_SECRET"},
		Retention: intent.ServerRetention{Every: hours(6), Runs: hours(7 * 24), Bundles: hours(14 * 24),
			Datasets: hours(48), Environments: hours(72), Posts: hours(96)},
		Commits: intent.ServerCommits{Name: "AOB of Acme", Email: "aob@acme.example",
			SigningKey: "/etc/aob/commits.key"},
		Secrets: map[string]intent.ServerSecret{"MLFLOW": {File: "/etc/aob/mlflow.token"}},
		Track: intent.ServerTrack{"mlflow": {"default": {URL: "https://mlflow.example.com/ml",
			Bearer: "MLFLOW"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// awsTrain is a configuration that trains in an account, with more keys under aws: and aws.train:.
func awsTrain(more, train string) string {
	return "repository: x\naws:\n  {controller: acme, regions: [eu-central-1, us-east-1], " + more +
		",\n   train: {" +
		`account: "123456789012", vpc: vpc-01234567, subnet: subnet-01234567, runs: abc, states: abd, providers: p,` +
		"\n     " + train + "}}\n"
}

func TestServerTrainsInAnAccount(t *testing.T) {
	s, complaints := intent.ParseServer("aob.yaml", []byte(awsTrain("sweep: 5m", "publicAddress: true")), nil, nil)
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	want := intent.ServerAWSTrain{Account: "123456789012", VPC: "vpc-01234567", Subnet: "subnet-01234567",
		PublicAddress: true, AMIOwner: "amazon", AMIName: intent.AMIName, Disk: 150 << 30,
		Runs: "abc", States: "abd", ScheduleGroup: "default", Providers: "/etc/aob/p"}
	if diff := cmp.Diff(&want, s.Resolve("/etc/aob").AWS.Train); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := strings.Join(s.AWS.Instances, " "); got != "g4dn.xlarge g5.xlarge g6.xlarge" {
		t.Errorf("it starts %s", got)
	}
}

func TestServerComplaints(t *testing.T) {
	const gitea = "repository: x\nforge: {gitea: {url: https://g.example.com, repo: a/b, "
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "aob.yaml: is empty; write the file, or remove it"},
		{"missing", "main: main\n",
			"aob.yaml:1:1: repository: missing: the intent repository: an address, or the folder of a bare repository"},
		{"unknown key", "repository: x\nheartbeet: 3s\n",
			"aob.yaml:2:1: heartbeet: unknown key; did you mean heartbeat?"},
		{"files elsewhere", "repository: x\nfiles: /srv/files\n",
			"aob.yaml:2:8: files: want s3://BUCKET/PREFIX; without it the state folder has these files"},
		{"a secret in files", "repository: x\nfiles: s3://a:b@c\n",
			"aob.yaml:2:8: files: a secret does not belong in an address; want secrets=NAME, a name under secrets:"},
		{"no controller", "repository: x\naws: {regions: [eu-central-1]}\n", "aob.yaml:2:1: aws.controller: " +
			"missing: the name of this server in the account, in the tag aob:controller of all that it makes"},
		{"no region", "repository: x\naws: {controller: acme, regions: []}\n",
			"aob.yaml:2:34: aws.regions: is empty; add at least one entry"},
		{"a bad region", "repository: x\naws: {controller: acme, regions: [Frankfurt]}\n",
			`aob.yaml:2:35: aws.regions[0]: want a region of AWS, as eu-central-1, got "Frankfurt"`},
		{"no instance", awsTrain("instances: []", "publicAddress: true"),
			"aob.yaml:3:69: aws.instances: is empty; add at least one entry"},
		{"a bad instance", awsTrain("instances: [g5]", "publicAddress: true"),
			`aob.yaml:3:70: aws.instances[0]: want a type of instance of AWS, as in g5.xlarge, got "g5"`},
		{"an instance twice", awsTrain("instances: [g5.xlarge, g5.xlarge]", "publicAddress: true"),
			"aob.yaml:3:81: aws.instances[1]: is the same as aws.instances[0]; remove one of them"},
		{"a number as account", "repository: x\naws: {controller: acme, regions: [eu-central-1], train: {account: " +
			"123456789012, vpc: vpc-01234567, subnet: subnet-01234567, runs: abc, states: abd, providers: p}}\n",
			`aob.yaml:2:67: aws.train.account: want text, got 123456789012; put it in quotes if it is text: ` +
				`"123456789012"`},
		{"nothing to start in", "repository: x\naws: {controller: acme, regions: [eu-central-1], train: {account: " +
			"\"123456789012\", subnet: subnet-01234567, runs: abc, states: abd, providers: p}}\n",
			"aob.yaml:2:50: aws.train.vpc: missing: the VPC of the subnet"},
		{"an address as bucket", strings.Replace(awsTrain("sweep: 5m", "disk: 99GiB"), "runs: abc",
			"runs: s3://abc", 1),
			`aob.yaml:4:87: aws.train.runs: want the name of a bucket of S3, without s3://, got "s3://abc"`},
		{"a small disk", awsTrain("sweep: 5m", "disk: 8GB"),
			"aob.yaml:5:12: aws.train.disk: want 30GiB to 2000GiB, got 8GB"},
		{"two images", awsTrain("sweep: 5m", "ami: ami-0123456789abcdef0, amiOwner: self"),
			"aob.yaml:5:44: aws.train.amiOwner: ami names the image already; remove one of them"},
		{"a boundary of another account", awsTrain("sweep: 5m",
			"permissionsBoundary: \"arn:aws:iam::999999999999:policy/aob/b\""), "aob.yaml:5:27: " +
			"aws.train.permissionsBoundary: is of account 999999999999, and aws.train.account is 123456789012"},
		{"a group that no sweep looks into", awsTrain("sweep: 5m", "scheduleGroup: mine"), "aob.yaml:5:21: " +
			`aws.train.scheduleGroup: want default, or the name of a group of schedules that begins with aob-, ` +
			`got "mine"`},
		{"unit", "repository: x\npoll: {git: 5}\n",
			`aob.yaml:2:13: poll.git: want a duration with its unit, as in 90s, 30m, 24h or 7d, got "5"`},
		{"range", "repository: x\npoll: {git: 1ms}\n", "aob.yaml:2:13: poll.git: want 100ms to 1h, got 1ms"},
		{"memory", "repository: x\ndetector: {memory: 1GB}\n", ""},
		{"little memory", "repository: x\ndetector: {memory: 1MB}\n",
			"aob.yaml:2:20: detector.memory: want 256MiB to 1024GiB, got 1MB"},
		{"no money", "repository: x\nautoGo: local\n",
			`aob.yaml:2:9: autoGo: want an amount of dollars, as in $12 or $0.50, got "local"`},
		{"no forge", "repository: x\nforge: {}\n",
			"aob.yaml:2:8: forge: want exactly one forge: local: {}, gitea: {url: …, repo: …, tokenEnv: …}, " +
				"github: {repo: …, tokenEnv: …} or gitlab: {project: …, tokenEnv: …}"},
		{"two forges", gitea + "tokenEnv: T}, local: {}}\n",
			"aob.yaml:2:8: forge: want exactly one forge: local: {}, gitea: {url: …, repo: …, tokenEnv: …}, " +
				"github: {repo: …, tokenEnv: …} or gitlab: {project: …, tokenEnv: …}"},
		{"no token", gitea + "}}\n", "aob.yaml:2:16: forge.gitea: want tokenEnv or tokenFile"},
		{"two tokens", gitea + "tokenEnv: T, tokenFile: t}}\n",
			"aob.yaml:2:16: forge.gitea: want tokenEnv or tokenFile, got both"},
		{"an App without a key", "repository: x\nforge: {github: {repo: a/b, app: {id: 7}}}\n",
			"aob.yaml:2:29: forge.github.app.keyFile: missing: the file of a private key of the App, in PEM as " +
				"GitHub makes it"},
		{"an App on Gitea", gitea + "app: {id: 7, keyFile: k}}}\n",
			"aob.yaml:2:61: forge.gitea.app: only github has Apps; want tokenEnv or tokenFile"},
		{"an App and a token", "repository: x\nforge: {github: {repo: a/b, tokenEnv: T, app: {id: 7, keyFile: k}}}\n",
			"aob.yaml:2:17: forge.github: want app or a token, and not both"},
		{"signs on Gitea", gitea + "tokenEnv: T, signs: true}}\n",
			"aob.yaml:2:76: forge.gitea.signs: only github makes commits itself; want commits.signingKey"},
		{"a project", "repository: x\nforge: {gitlab: {project: vision/models/intent, tokenEnv: T}}\n", ""},
		{"a project's number", "repository: x\nforge: {gitlab: {project: \"42\", tokenEnv: T}}\n", ""},
		{"no project", "repository: x\nforge: {gitlab: {tokenEnv: T}}\n",
			"aob.yaml:2:9: forge.gitlab.project: missing: the project there, as vision/intent"},
		{"a project without a group", "repository: x\nforge: {gitlab: {project: intent, tokenEnv: T}}\n",
			"aob.yaml:2:27: forge.gitlab.project: want the path of a project with its groups, as vision/intent, or " +
				`its number in quotes, got "intent"`},
		{"a repository on GitLab", "repository: x\nforge: {gitlab: {repo: a/b, tokenEnv: T}}\n",
			"aob.yaml:2:24: forge.gitlab.repo: gitlab has projects; want project"},
		{"a project on Gitea", gitea + "project: a/b, tokenEnv: T}}\n",
			"aob.yaml:2:65: forge.gitea.project: only gitlab has projects; want repo"},
		{"an App", "repository: x\nforge: {github: {repo: a/b, app: {id: 7, keyFile: k}}}\n", ""},
		{"certificate alone", "repository: x\nlisten: {certificate: c.pem}\n",
			"aob.yaml:2:9: listen: want certificate and key together, or neither"},
		{"relative dataset", "repository: x\ndatasets: {dir: {a: data}}\n",
			`aob.yaml:2:21: datasets.dir.a: want an absolute path, as in /srv/datasets, ` +
				`or an address, as in s3://bucket`},
		{"dataset name", "repository: x\ndatasets: {dir: {a/b: /data}}\n",
			`aob.yaml:2:18: datasets.dir.a/b: want a key that is a name of letters, digits and ._-, got "a/b"`},
		{"e-mail", "repository: x\ncommits: {email: aob}\n",
			`aob.yaml:2:18: commits.email: want an e-mail address, as in aob@example.com, got "aob"`},
		{"author", "repository: x\ncommits: {name: a <b>}\n",
			`aob.yaml:2:17: commits.name: want a name of at most 100 characters without < and >, got "a <b>"`},
		{"kind of tracker", "repository: x\ntrack: {mlfow: {default: {url: https://a}}}\n",
			`aob.yaml:2:16: track.mlfow: unknown kind of tracker "mlfow"; did you mean mlflow? known: mlflow`},
		{"tracker without address", "repository: x\ntrack: {mlflow: {default: {}}}\n",
			"aob.yaml:2:18: track.mlflow.default.url: missing: the tracker's address, as https://mlflow.example.com"},
		{"tracker's secret", "repository: x\ntrack: {mlflow: {default: {url: https://a, bearer: MLFLOW}}}\n",
			"aob.yaml:2:52: track.mlflow.default.bearer: secrets: has no MLFLOW; add secrets: {MLFLOW: {file: PATH}}"},
		{"tracker's two secrets", "repository: x\nsecrets: {M: {env: M}}\n" +
			"track: {mlflow: {default: {url: https://a, bearer: M, basic: M}}}\n",
			"aob.yaml:3:27: track.mlflow.default: want bearer or basic, got both"},
		{"weights", "repository: x\nweights: {small: {file: w.pth, sha256: " + strings.Repeat("0a", 32) +
			", licence: Apache-2.0}}\n", ""},
		{"weights without a licence", "repository: x\nweights: {small: {file: w.pth, sha256: " +
			strings.Repeat("0a", 32) + "}}\n",
			"aob.yaml:2:11: weights.small.licence: missing: their licence, as an SPDX name"},
		{"weights of another digest", "repository: x\nweights: {small: {file: w.pth, sha256: md5, licence: MIT}}\n",
			`aob.yaml:2:40: weights.small.sha256: want a SHA-256 in 64 lower-case hex digits, got "md5"`},
		{"weights with a taken name", "repository: x\nweights: {release: {file: w.pth, sha256: " +
			strings.Repeat("0a", 32) + ", licence: MIT}}\n",
			"aob.yaml:2:20: weights.release: has another meaning in train.from; choose another name"},
		{"image by a tag", "repository: x\ncontainers: {images: {rfdetr@1.11.2: ghcr.io/acme/rfdetr:1.11}}\n",
			`aob.yaml:2:38: containers.images["rfdetr@1.11.2"]: want an image by its digest, HOST/REPOSITORY@sha256: ` +
				`and 64 hex digits, as podman images --digests shows it; a tag may become another image, got ` +
				`"ghcr.io/acme/rfdetr:1.11"`},
		{"image by a tag and a digest", "repository: x\ncontainers: {images: {a@1: \"ghcr.io/a/b:1@sha256:" +
			strings.Repeat("0a", 32) + "\"}}\n", `aob.yaml:2:28: containers.images["a@1"]: want an image by its ` +
			`digest, HOST/REPOSITORY@sha256: and 64 hex digits, as podman images --digests shows it; a tag may ` +
			`become another image, got "ghcr.io/a/b:1@sha256:` + strings.Repeat("0a", 19) + `0…"`},
		{"image of no version", "repository: x\ncontainers: {images: {a: \"ghcr.io/a/b@sha256:" +
			strings.Repeat("0a", 32) + "\"}}\n",
			`aob.yaml:2:23: containers.images.a: want a key that is a trainer and its version, NAME@VERSION, got "a"`},
		{"branch", "repository: x\nmain: -f\n", `aob.yaml:2:7: main: want the name of a branch, got "-f"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, complaints := intent.ParseServer("aob.yaml", []byte(c.text), nil, nil)
			var got []string
			for _, c := range complaints {
				got = append(got, c.String())
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

// A secret in the file is refused, and what is said about it does not show it.
func TestServerSecrets(t *testing.T) {
	const secret = "ghp_0123456789abcdef"
	for _, text := range []string{
		"forge: {gitea: {url: https://g.example.com, repo: a/b, token: " + secret + "}}",
		"secrets: {HF_TOKEN: " + secret + "}", "secrets: " + secret, "secrets: [" + secret + "]",
		"secrets: {HF_TOKEN: {env: " + secret + "}}", "secrets: {HF_TOKEN: {value: " + secret + "}}",
		"secrets: {HF_TOKEN: {token: " + secret + "}}",
		"forge: {gitea: {url: https://g.example.com, repo: a/b, tokenEnv: " + secret + "}}",
		"forge: {gitea: {url: https://g.example.com, repo: a/b, tokenEnv: T, webhookSecret: " + secret + "}}",
		"forge: {gitea: {url: https://g.example.com, repo: a/b, tokenEnv: [" + secret + "]}}",
		"forge: {gitea: {url: https://me:" + secret + "@g.example.com, repo: a/b, tokenEnv: T}}",
		"password: " + secret,
		"devices: {token: " + secret + "}",
		"devices: {secretEnv: '" + secret + "'}",
		"devices: {tokens: [" + secret + "]}",
		"keys: {evidence: \"-----BEGIN PRIVATE KEY-----\\n" + secret + "\"}",
		"keys: {password: {a: " + secret + "}}",
		"apiKey: " + secret,
		"signingKey: " + secret,
		"keys: {signingKey: " + secret + "}",
		"commits: {signingKey: \"-----BEGIN OPENSSH PRIVATE KEY-----" + secret + "-----END OPENSSH PRIVATE KEY-----\"}",
		"commits: {signingKey: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  " + secret + "\n}",
		"commits:\n  signingKey: |\n    " + secret + "\n    more",
	} {
		_, complaints := intent.ParseServer("aob.yaml", []byte("repository: x\n"+text+"\n"), nil, nil)
		if len(complaints) == 0 {
			t.Errorf("accepted: %s", text)
		}
		for _, c := range complaints {
			if strings.Contains(c.String(), "0123456789abcdef") {
				t.Errorf("a complaint shows the secret: %s", c)
			}
		}
	}
	for _, repository := range []string{"https://me:" + secret + "@g.example.com/a/b", "https://" + secret +
		"@g.example.com/a/b"} {
		_, complaints := intent.ParseServer("aob.yaml", []byte("repository: "+repository+"\n"), nil, nil)
		if len(complaints) != 1 || strings.Contains(complaints[0].String(), "0123456789abcdef") {
			t.Errorf("%s: %v", repository, complaints)
		}
	}
	for _, repository := range []string{"ssh://git@g.example.com/a/b.git", "git@g.example.com:a/b.git",
		"https://g.example.com/a@b"} {
		if _, complaints := intent.ParseServer("aob.yaml", []byte("repository: "+repository+"\n"), nil, nil); len(
			complaints) > 0 {
			t.Errorf("%s: %v", repository, complaints)
		}
	}
}

// How many runs of data, evaluation and comparison there are at once may be configured, within bounds.
func TestRunsAtOnceAreConfigured(t *testing.T) {
	const rest = "repository: intent.git\ndatasets: {}\n"
	for text, want := range map[string]int{"": 0, "runs: 3\n": 3, "runs: 1000\n": 1000} {
		s, complaints := intent.ParseServer("aob.yaml", []byte(rest+text), nil, nil)
		if len(complaints) > 0 || s.Runs != want {
			t.Errorf("%q: %d runs, %v", text, s.Runs, complaints)
		}
	}
	for _, text := range []string{"runs: 0\n", "runs: -1\n", "runs: 1001\n", "runs: many\n"} {
		if _, complaints := intent.ParseServer("aob.yaml", []byte(rest+text), nil, nil); len(complaints) != 1 ||
			complaints[0].Path != "runs" {
			t.Errorf("%q: %v", text, complaints)
		}
	}
}

// The configuration in docs/trainers.md is one that a server takes.
func TestContainersPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/trainers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(data), "```yaml\ncontainers:")
	text, _, _ = strings.Cut(text, "```")
	if !ok {
		t.Fatal("docs/trainers.md configures no container")
	}
	text = "repository: x\ncontainers:" + strings.ReplaceAll(text, "0a1b…", strings.Repeat("0a1b", 16))
	s, complaints := intent.ParseServer("trainers.md", []byte(text), nil, nil)
	image := "ghcr.io/acme/rfdetr@sha256:" + strings.Repeat("0a1b", 16)
	want := intent.ServerContainers{Engine: "podman", Images: map[string]string{"rfdetr@1.11.2": image},
		Pull: "missing", Memory: 32 << 30, CPUs: 8, Processes: 4096, Device: "nvidia.com/gpu=all"}
	if diff := cmp.Diff(want, s.Containers); len(complaints) > 0 || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", complaints, diff)
	}
}
