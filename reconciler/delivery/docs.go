package delivery

import "strings"

// Docs describes each key of the repository's files and of trainer.yaml, by type and key. JSON Schemas and complaints
// quote it. Keys that all files have are under "".
var Docs = map[string]map[string]string{
	"": {
		"apiVersion": "The version of this file's format.",
		"kind":       "What this file describes.",
	},
	"Model": {
		"name": "The model's name, the same as the file's.",
		"dataset": "What it is trained on: a frozen version of COCO-format images, by a name that the server's " +
			"configuration allows.",
		"classes": "The classes to detect, in order; or a map from each class to the dataset's labels for it.",
		"scenes": "A regular expression for the paths of images with the groups site and time, as in " +
			"(?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6}). The check of the dataset warns about a site in train " +
			"and in valid or test, and of images that were taken soon after one another. It is not part of the spec.",
		"was": "The model's former name, in the pull request that renames it. Its gates, releases and quarantine " +
			"continue under the new name, without training. Remove it once main has a release of the new name.",
		"train": "How it is trained.",
		"thresholds": "The score from which a detection of a class counts, by class, and default for the others; " +
			"determined on the validation split. Changing one does not train the model again.",
		"variants": "The number formats that are made of the trained model: fp32 is the model itself; fp16 and int8 " +
			"are made from it without training, where the trainer can, and judged like it. The gates of fp32 decide " +
			"about the release. The release file names the others that passed, and a fleet may run one of them.",
		"track": "The experiment tracker that trainings and releases are copied to. It is not part of the spec.",
	},
	"Track": {
		"mlflow": "An MLflow server, by its name under track: mlflow: in the server's configuration.",
	},
	"Train": {
		"with":         "The trainer and its version: NAME@VERSION, where NAME is a folder of the server's trainers.",
		"architecture": "The network architecture, one of the trainer's; the first by default.",
		"from": "The weights to start from: none for random ones, the name of weights in the server's configuration, " +
			"release for the model's release on main, or MODEL@VERSION. The trainer says which of these it can do.",
		"resolution":    "Input size in pixels; the trainer has the default.",
		"epochs":        "Passes over the training split; the trainer has the default.",
		"batch":         "Images per step.",
		"optimizer":     "How weights are updated.",
		"precision":     "The number format during training.",
		"earlyStopping": "When to stop before the last epoch, by mAP@[.50:.95] on the validation split.",
		"seeds": "Random seeds. A model is trained for each; the best on the validation split is released, and the " +
			"spread is reported.",
		"args":    "Further arguments, checked against trainers/NAME/schema.json.",
		"machine": "Where it is trained. It is not part of the spec.",
		"import":  "An existing ONNX file to use instead of training.",
	},
	"Batch": {
		"effective": "Images per step of the optimizer; the trainer has the default.",
		"step":      "Images in one pass through the network; a divisor of effective, and equal to it by default.",
	},
	"Optimizer": {
		"name":     "The optimizer.",
		"lr":       "The highest learning rate; the trainer has the default.",
		"warmup":   "Epochs of linear warm-up; the trainer has the default.",
		"schedule": "How the rate falls after warm-up.",
	},
	"EarlyStopping": {
		"patience": "Epochs without a better model before it stops; 0 never stops early.",
	},
	"Machine": {
		"terraform": "The Terraform module: infra/terraform/NAME. train-local is the server's machine and costs " +
			"nothing; train-aws-ec2 is a GPU instance of AWS, which starts once somebody agreed to its price: see " +
			"docs/aws.md.",
		"instance": "The type of the instance, as in g5.xlarge; train-aws-ec2 needs one. The server's configuration " +
			"lists the types that it starts.",
		"spot": "Whether to use spot instances, which cost less and may be interrupted: never, prefer (on demand " +
			"where there are none) or only; never by default.",
		"limit": "The longest that the training of one seed may take, all attempts together.",
		"maxCost": "The most that the training may cost, all seeds together, as in $12; by default what its limit of " +
			"time costs on demand.",
	},
	"Trainer": {
		"name": "The trainer's name, the same as the folder's.",
		"versions": "The versions that models may use, as in train.with: NAME@VERSION. Make a new version when the " +
			"same settings would give another model.",
		"architectures": "The network architectures that it trains; the first is the default.",
		"accelerator":   "The processor that it uses. Results of another accelerator are not reused.",
		"defaults":      "The values of keys that a model's train: leaves out. A key without a default is required.",
		"resolution":    "The input sizes that it supports.",
		"precisions":    "The values of train.precision that it supports.",
		"variants":      "The variants besides fp32 that it can make of a trained model.",
		"from": "What it can start from: none is random weights, weights are base weights of the server's " +
			"configuration, release is the checkpoint of an earlier training.",
		"licences": "The licences of architectures, as SPDX names, for those that are not under Apache-2.0. A gate " +
			"allows licences.",
		"secrets": "The names of the secrets that a training gets as environment variables. Their values are " +
			"configured under secrets: in the server's configuration.",
		"sizes": "What architectures are made for, which aob init writes into a new model's file. It fills in " +
			"nothing: a model that leaves a key out has the value of defaults.",
		"environment": "The Python environment that AOB makes for each version from versions/VERSION/" +
			"requirements.txt, a lock file with hashes. Without it, the server's Python runs the trainer.",
	},
	"TrainerSize": {
		"resolution": "The input size in pixels that the architecture is made for.",
	},
	"TrainerEnvironment": {
		"disk":   "The free disk space that making it needs.",
		"python": "The versions of Python that its packages are made for.",
	},
	"TrainerPython": {
		"min": "The lowest, as in \"3.10\".",
		"max": "The highest, as in \"3.13\".",
	},
	"TrainerResolution": {
		"min":        "The smallest, in pixels.",
		"max":        "The largest, in pixels.",
		"multipleOf": "The size is a multiple of this.",
	},
	"Gate": {
		"name":   "The gate's name, the same as the file's.",
		"covers": "The models that must pass this gate.",
		"owners": "Who may accept an unsure check: users of the forge, or teams of the repository. A name that " +
			"is both means the team.",
		"evaluate": "The images and ground truth that models are measured on.",
		"classes": "The classes that the gate measures. A model without one of them fails. Other classes of a model " +
			"are shown and not counted. aob gate freeze writes it.",
		"labels": "The names that count as a class of the gate, where they are not just its own name: labels of the " +
			"eval set, and classes of models. The labels in a model's file are for the model's dataset only.",
		"looks": "How many models may be judged on one eval set against one baseline. Further verdicts are unsure, " +
			"since the best result of many is too optimistic. Without it there is no limit.",
		"licence": "The licences, as SPDX names, that a model's architecture and base weights may be under; by " +
			"default " + strings.Join(Permissive, ", ") + ".",
		"checks": "The conditions; all of them must hold.",
	},
	"EvalSet": {
		"dataset": "The dataset, by a name that the server's configuration allows.",
		"split":   "Which split of it.",
		"content": "The digest of the split's images and annotations. aob gate freeze writes it; other content under " +
			"the name is an error.",
		"group": "The field of the annotation file's images by which they are grouped, such as video. Images of one " +
			"group are not independent, so the bootstrap draws whole groups.",
	},
	"GateCheck": {
		"metric": "What is measured. " + metricDocs() + ".",
		"classes": "For " + strings.Join(MetricNames(Metric.ByClass), ", ") +
			": all, for every class of the gate, or " +
			"a list of them. Each class must meet the bound.",
		"except": "Classes of the gate that this check leaves out.",
		"min":    "The lowest value that passes.",
		"max": "The highest value that passes, with its unit, as in 120MB or 33ms; for falsePositivesPerImage a " +
			"number.",
		"maxDrop": "How much lower than the baseline the value may be.",
		"against": "With maxDrop: the baseline. release is the release on the target branch. A version, as in " +
			"pallets@12, is a fixed baseline, so that many small losses cannot add up. fp32 is for variants of the " +
			"model: they are compared with the model that they are made of.",
		"confidence": "The confidence of the one-sided bounds.",
		"support":    "The number of annotations that a class needs; with fewer the check is unsure.",
		"unsure":     "What an unsure check means: fail, review (pending until an owner accepts it), or ignore.",
		"at": "With " + strings.Join(MetricNames(func(m Metric) bool { return m.AtThreshold }), ", ") +
			": threshold, which is the score threshold that the model has for each class.",
		"profiles": "For latency: the hardware profiles that must meet the bound. all stands for those of the " +
			"fleets on the target branch that run the model.",
	},
	"Fleet": {
		"name":    "The fleet's name, the same as the file's.",
		"runs":    "The model. The fleet follows its accepted release.",
		"version": "Pins the fleet to this version of the model.",
		"variant": "The variant of the model that the devices get. The fleet keeps what it runs while a " +
			"release has no such variant.",
		"target":   "What the devices are.",
		"profiles": "Hardware profiles; the first wave takes at least one device of each.",
		"match":    "Labels that a device must have to be in the fleet.",
		"bench":    "Devices that models are measured on before they are released, for checks of latency.",
		"after":    "A fleet that must run the release healthily before this one starts.",
		"shadow":   "Runs the candidate beside the release without showing its results.",
		"waves":    "The size of each step of a rollout: devices (1) or shares (25%), increasing; the last is 100%.",
		"soak":     "How long a wave must be healthy before the next.",
		"advance":  "What ends a wave: every device of it healthy after soak. Statistics (auto) come later.",
		"budget":   "What a release may do to a device.",
		"window":   "When a rollout may advance.",
		"paused":   "Whether rollouts stop where they are.",
		"mine":     "Which frames are sent back for labelling.",
		"drift":    "When a change of the scene is reported.",
	},
	"BenchDevices": {
		"match": "Labels that a device must have besides those of the fleet, as in role: bench.",
	},
	"Profile": {
		"board": "The board, as devices report it in their label board.",
	},
	"After": {
		"fleet":   "The fleet to wait for.",
		"healthy": "How long that fleet must have run the release, all of it healthy.",
	},
	"Budget": {
		"failures":    "The share of failed devices at which a rollout still continues; 0% by default.",
		"latency.p95": "The highest 95th percentile of the time for a frame.",
		"temperature": "The highest temperature of a device.",
	},
	"Failures": {
		"tolerable":    "A release with this rate of failed devices is good.",
		"unacceptable": "A release with this rate must be stopped, by statistics.",
	},
	"Window": {
		"days": "On which days it opens.",
		"from": "When it opens, as in \"01:00\".",
		"to":   "When it closes, as in \"05:00\".",
		"zone": "The time zone, as in Europe/Berlin.",
	},
	"Release": {
		"name":     "The model's name.",
		"version":  "One more than the highest version that main has had.",
		"bundle":   "The digest of the packaged model.",
		"spec":     "The digest of the spec that the bundle was trained for.",
		"measured": "The scores on each gate's eval set, sorted by the gate's name.",
		"variants": "The variants besides fp32 that passed every gate.",
	},
	"ReleasedVariant": {
		"variant": "Its number format.",
		"bundle":  "The digest of its packaged model.",
		"model":   "The digest of its ONNX file.",
		"faster": "How many times as fast as fp32 it is, by what this was measured for: cloud, the processor of the " +
			"server, or a hardware profile, by signed benches.",
	},
	"Measured": {
		"gate":     "The gate.",
		"evalSet":  "The digest of its images and annotations.",
		"images":   "The number of images.",
		"metrics":  "The scores over the gate's classes, and the AP of each class as AP/CLASS.",
		"baseline": "The release on the target branch, measured on the same images. A first model has none.",
		"verdict":  "The gate's verdict. If it is unsure, an owner accepted it.",
		"leftOut":  "The number of images of the eval set that are not measured, since a model was trained on them.",
		"look":     "How many models had been judged on the eval set against the baseline, this one included.",
		"checks":   "The results of the gate's checks, in its order, and by class.",
		"lost": "Figures in which the model is significantly worse than the release, whether a check covers them " +
			"or not.",
	},
	"CheckMeasured": {
		"check":    "The check, as in mAP drop <= 0.01.",
		"class":    "The class that was checked.",
		"outcome":  "The result.",
		"value":    "The measured value.",
		"baseline": "The baseline's value on the same images.",
		"diff":     "The value minus that.",
		"low":      "The lower bound of the difference, or else of the value, at the check's confidence.",
		"high":     "The upper bound.",
		"code":     "The reason as a code, as in drop.unsure.",
		"reason":   "The reason as text, unless it passed.",
	},
	"Loss": {
		"metric": "What got worse: mAP, AP, or recall, precision and falsePositivesPerImage at the model's " +
			"score thresholds.",
		"class":    "The class, for AP.",
		"value":    "The model's value.",
		"baseline": "The release's value on the same images.",
		"diff":     "The value minus that.",
		"atBest": "The one-sided bound of the difference nearest to 0, at 95% confidence, adjusted for the number of " +
			"classes.",
		"error":      "The type of detection error that explains most of it, by TIDE's names: Miss, Loc, Cls, ...",
		"errorClass": "The class that has these errors.",
		"errorAP50":  "The loss of AP50 by these errors.",
		"errors":     "How many more such errors there are.",
		"why":        "The explanation as text, written by older versions of AOB.",
	},
	"Figure": {
		"value": "The value.",
		"low":   "The lower bound at 95% confidence, over the choice of test images.",
		"high":  "The upper bound at 95% confidence, over the choice of test images.",
	},
	"BaselineMeasured": {
		"version": "Its version.",
		"bundle":  "The digest of its packaged model.",
		"metrics": "Its scores.",
	},
	"Quarantine": {
		"name":    "The model's name.",
		"entries": "Bundles that must not run. Entries are added or lifted, and never removed.",
	},
	"Quarantined": {
		"digest": "The bundle.",
		"why":    "Why it must not run.",
		"fleet":  "The fleet on which it failed.",
		"lifted": "Why it may run again. Without it the bundle must not run.",
	},
	"TrainerDefaults": {
		"resolution": "Input size in pixels.",
		"epochs":     "Passes over the training split.",
		"batch":      "Images per step.",
		"optimizer":  "How weights are updated.",
	},
	"TrainerBatchDefaults": {
		"effective": "Images per step of the optimizer.",
	},
	"TrainerOptimizerDefault": {
		"lr":     "The highest learning rate.",
		"warmup": "Epochs of linear warm-up.",
	},
	"Signature": {
		"schemaVersion": "The version of this format. Version 2 has scale, clip and edges besides; from version 3 on " +
			"the model's file has metadata of AOB's own.",
		"input":  "The model's input: float32 [N,3,height,width], RGB.",
		"boxes":  "The output with boxes: [N,Q,4], each centre x, centre y, width and height, 0 to 1.",
		"logits": "The output with a logit for each box and slot: [N,Q,slots].",
		"width":  "Of the input, in pixels.",
		"height": "Of the input, in pixels.",
		"resize": "How an image gets the input's size.",
		"scale":  "Multiplies each byte of a pixel; 0 is 1/255.",
		"means":  "Subtracted after the scale: red, green, blue.",
		"stds":   "What the difference is divided by: red, green, blue.",
		"slots": "The class of each slot of the logits, each class once; an empty text is a slot without a " +
			"class.",
		"background": "The slot for no object, -1 if there is none.",
		"select":     "How many of all scores are kept, highest first.",
		"clip":       "Boxes are cut to the image's edges.",
		"edges": "Upper edges of the histograms of what the model sees in service, ascending; empty ones are the " +
			"defaults.",
	},
	"Resize": {
		"algorithm": "bilinear: half-pixel centres, as PyTorch's interpolate with align_corners=False.",
		"antialias": "The filter grows where an image gets smaller, as PyTorch's antialias=True.",
		"padding":   "none: the whole image is stretched to the input's size.",
		"dtype":     "What is resized: float32, or uint8, where values are rounded to bytes before the scale.",
	},
	"Edges": {
		"confidence": "Of scores, 0 to 1.",
		"entropy":    "Of the entropy of scores in bits, 0 to 1.",
		"area":       "Of the areas of boxes, as shares of the image.",
		"boxes":      "Of the numbers of boxes in an image.",
	},
}
