package intent

// serverDocs describes each key of the server's configuration, by type and key.
var serverDocs = map[string]map[string]string{
	"Server": {
		"repository": "The intent repository: an address, or the folder of a bare repository.",
		"main":       "The branch whose releases run on devices.",
		"forge": "Where pull requests are: one kind of forge and its settings. local: {} is the bare folder alone, " +
			"where every branch but main is a proposal; gitea is a Gitea or Forgejo server, github is github.com or " +
			"a GitHub Enterprise Server, and gitlab is gitlab.com or a GitLab server.",
		"state":    "The folder of all that the server keeps: mirror, runs, bundles, ledger, keys.",
		"listen":   "Where devices, webhooks and browsers reach the server.",
		"socket":   "The Unix socket of aob status and the other commands; aob.sock in state by default.",
		"datasets": "The names that references to datasets may use, and their locations, by source.",
		"autoGo": "A training that can cost at most this starts without a go, if its author has write permission. " +
			"Local trainings cost nothing.",
		"poll":      "How often the repository and the forge are read if no webhook arrives.",
		"fleets":    "How often devices and the server communicate.",
		"detector":  "The process that runs ONNX models, to evaluate them.",
		"trainings": "How many models are trained at once; those of pull requests go first.",
		"runs": "How many checks of data, evaluations and comparisons run at once; twice the number of " +
			"processors by default.",
		"trainers":  "A folder of trainers to use in place of the built-in ones: see docs/trainers.md.",
		"python":    "The Python that runs trainers.",
		"terraform": "The program of Terraform or OpenTofu; terraform on PATH by default.",
		"keys":      "The files of the signing keys.",
		"commits":   "The author of AOB's commits, and the key that signs them.",
		"heartbeat": "How long a run may be without a heartbeat before it counts as dead.",
		"devices":   "How devices authenticate.",
		"retention": "How long the server keeps what nothing needs any more: see docs/retention.md.",
		"secrets": "The secrets that trainers and sources of datasets need, by name, and where each is: {env: " +
			"VARIABLE} " +
			"or {file: PATH}. A run gets only those that its trainer or its source names.",
		"weights": "The base weights that models may start from, by the names that they use in train.from.",
		"containers": "The trainers that run in containers, in place of an environment of Python packages: see " +
			"docs/trainers.md.",
		"files": "Where the files of runs are that later runs and readers need, and the datasets that were fetched " +
			"from Roboflow, as s3://BUCKET/PREFIX?region=NAME&endpoint=https://HOST&secrets=NAME, of which all but " +
			"the bucket may be left out; the state folder by default.",
		"aws":   "The account of AWS in which models may be trained. Without it nothing in the cloud is used.",
		"track": "The experiment trackers that models may name, by kind and name; mlflow is the only kind.",
	},
	"ServerRetention": {
		"every": "How often the server removes what is old; aob gc does it at once.",
		"runs": "How long after their end the folders of runs stay, with logs and checkpoints, and detections and " +
			"pictures after they were made.",
		"bundles": "How long after they were pushed the ONNX files of bundles stay that were not released, and " +
			"checkpoints and lists of training images that only such bundles name.",
		"datasets":     "How long fetched datasets stay after they were last used. They are fetched again.",
		"environments": "How long the Python packages of trainers stay after they were last used.",
		"posts": "How long the server remembers what it posted on commits and pull requests that are closed, and the " +
			"rollouts of fleets that are gone.",
		"automatic": "false: the server removes nothing by itself; aob gc does.",
	},
	"ServerTracker": {
		"url":    "The tracker's address, as https://mlflow.example.com.",
		"bearer": "The name under secrets: of a token, which is sent as Authorization: Bearer.",
		"basic":  "The name under secrets: of USER:PASSWORD, which is sent as Authorization: Basic.",
	},
	"ServerForgeSettings": {
		"url": "The server's address, as https://gitea.example.com. Without it, github is github.com, and gitlab is " +
			"gitlab.com.",
		"repo": "The repository there: owner/name.",
		"project": "On GitLab, in place of repo: the project with its groups, as vision/intent, or its number in " +
			"quotes.",
		"tokenEnv":  "The environment variable that holds the access token.",
		"tokenFile": "The file that holds the access token.",
		"webhookSecretEnv": "The environment variable that holds the webhook's secret. Without a secret no webhook " +
			"is accepted, and polling finds changes.",
		"webhookSecretFile": "The file that holds the webhook's secret.",
		"app": "On GitHub: AOB is this GitHub App and needs no access token. It then shows check runs with " +
			"annotations and buttons; see docs/github.md.",
		"signs": "On GitHub: GitHub makes the release commits and signs them, for branches that require signed " +
			"commits. Otherwise AOB makes them, and signs them with commits.signingKey.",
	},
	"ServerGitHubApp": {
		"id":           "The App ID, a number in the App's settings.",
		"installation": "The number of the App's installation on the repository. AOB finds it where it is left out.",
		"keyFile":      "The file of a private key of the App, in PEM as GitHub makes it.",
	},
	"ServerListen": {
		"url": "The address by which people reach this server, as https://aob.example.com: pull requests " +
			"link to it. Without it they have no links.",
		"address": "Address and port.",
		"metrics": "Address and port of /metrics for Prometheus, as 127.0.0.1:8371: plain HTTP, for this machine " +
			"or a network of operators. Without it there are none.",
		"certificate": "The TLS certificate's file, PEM; with key.",
		"key":         "The file of the certificate's private key, PEM.",
	},
	"ServerPoll": {
		"git":   "The time between two reads of the repository's branches.",
		"forge": "The time between two reads of the forge's pull requests.",
	},
	"ServerFleets": {
		"poll":     "The time between two requests of a device for what it must run.",
		"expiry":   "How long a signed desired state may be installed.",
		"deadline": "How long a device in a wave may send no report before it counts as failed.",
	},
	"ServerDetector": {
		"binary":  "The file of aob-detect; beside aob by default.",
		"library": "The file of the ONNX Runtime library; looked for by default.",
		"memory":  "The most memory that it may take. A profile has its own limit in place of this one.",
		"limit":   "The longest that one evaluation may take.",
		"profile": "The hardware profile that evaluations compute with, as in cuda-fp32; the CPU by default. Scores " +
			"of another provider, GPU or version are measured again.",
		"profiles": "A file with more hardware profiles, see docs/profiles.md.",
		"engines":  "The folder where TensorRT engines are kept; engines in state by default.",
	},
	"ServerKeys": {
		"evidence": "The private key that signs evidence.",
		"desired":  "The private key that signs what fleets run.",
		"trusted":  "Public keys whose evidence counts beside the server's own, as after a change of keys.",
	},
	"ServerCommits": {
		"name": "The name of the author and committer.",
		"email": "The e-mail address of the author and committer. A forge finds the account by it whose keys " +
			"verify signatures.",
		"signingKey": "The file of the SSH private key, ed25519 and without a passphrase, that signs the commits. " +
			"Without it they are not signed.",
	},
	"ServerSecret": {
		"env":  "The environment variable of aob serve that holds it.",
		"file": "The file that holds it.",
	},
	"ServerWeights": {
		"file":    "Their file.",
		"sha256":  "The SHA-256 of the file, which is checked before each training.",
		"licence": "Their licence, as an SPDX name. A gate allows licences.",
	},
	"ServerContainers": {
		"engine": "The program of podman or docker; the first of them on PATH by default.",
		"images": "The images that trainers run in, by NAME@VERSION: HOST/REPOSITORY@sha256:DIGEST. A tag is refused.",
		"pull": "What is done about an image that is not there: missing pulls it by its digest before the first " +
			"training; never leaves it to an operator.",
		"memory":    "The most memory that a container may take, with its files in /tmp.",
		"cpus":      "The most processors that a container may use; all by default.",
		"processes": "The most processes and threads of a container.",
		"device": "The device of trainings with a GPU, as podman and docker call it: nvidia.com/gpu=all. Without it " +
			"a container has none.",
	},
	"ServerDevices": {
		"secretEnv": "The environment variable that holds the fleet's secret, which devices' tokens are derived from.",
		"secretFile": "The file that holds the fleet's secret; fleet.secret in state by default, made at the first " +
			"start. Devices never get it: aob device token prints a device's own token.",
	},
	"ServerAWS": {
		"controller": "The name of this server in the account, in the tag aob:controller of all that it makes. No " +
			"other server may have it: what has this tag and no run of this server needs is ended.",
		"regions": "The regions in which models may be trained, the first by default; all are swept.",
		"day": "The most that trainings may cost that begin on one day, in UTC: what was spent, and what was agreed " +
			"for those that go on. More waits for the next day.",
		"month": "The same for a month.",
		"instances": "The types of instances that models may train on. The server's role must be allowed to start " +
			"them.",
		"train": "Where instances start. Without it no model is trained in the account: see docs/aws.md.",
		"sweep": "The time between two sweeps of the account for what no run needs any more.",
	}, "ServerAWSTrain": {
		"account": "The account's 12 digits, in quotes. Nothing starts with the credentials of another one.",
		"vpc":     "The VPC of the subnet.",
		"subnet":  "The subnet of the instances, in the first of regions. It needs a way to S3, and to ECR for images.",
		"publicAddress": "Whether instances get a public address, for a subnet without NAT. Nothing is let in either " +
			"way.",
		"ami": "The image that instances boot, where you have your own; the newest of amiOwner and amiName by " +
			"default.",
		"amiOwner": "The owner of the image that instances boot: amazon, self or an account's 12 digits in quotes.",
		"amiName": "The name of the image that instances boot, in which * stands for any text; the Deep Learning " +
			"Base image of Ubuntu 22.04 by default.",
		"disk": "The size of an instance's disk. It is encrypted, and goes with the instance.",
		"runs": "The bucket in which instances read their inputs and write what they make: output runs_bucket of " +
			"the module artifacts.",
		"states": "The bucket of Terraform's states: output states_bucket of the module artifacts.",
		"permissionsBoundary": "The ARN of the policy that bounds the roles of instances: output " +
			"permissions_boundary of the module github-oidc.",
		"scheduleGroup": "The group of the schedules that end instances: default, or one of yours whose tag " +
			"aob:controller is controller.",
		"providers": "A folder that has the provider hashicorp/aws, as terraform providers mirror fills it: " +
			"Terraform downloads nothing while AOB runs it.",
	},
}
