package intent

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A form is a rule for text that a struct tag names.
type form struct {
	pattern *regexp.Regexp
	most    int                       // characters; 0 where the pattern has the limit
	want    string                    // for complaints
	secret  bool                      // the text may be a pasted secret, so complaints do not repeat it
	why     func(value string) string // the reason, for complaints; may be nil
	valid   func(value string) bool   // besides the pattern; may be nil
}

// segment matches one part of a path, but not . or .., in the syntax that Go and JSON Schema have in common.
const segment = `(?:[A-Za-z0-9_-]|\.[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]*`

const version = `[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}`

const digestPattern = `^sha256:[0-9a-f]{64}$`

// forms are the forms of text by their names in check tags.
var forms = map[string]*form{
	"name": {pattern: regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`),
		want: "a name of at most 63 lower-case letters, digits and dashes"},
	"trainer": {pattern: regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?@` + version + `$`),
		want: "a trainer and its version, NAME@VERSION"},
	"image": {pattern: regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+` +
		`@sha256:[0-9a-f]{64}$`), most: 500,
		want: "an image by its digest, HOST/REPOSITORY@sha256: and 64 hex digits, as podman images --digests shows it" +
			"; a tag may become another image"},
	"region": {pattern: regexp.MustCompile(`^[a-z]{2,4}(?:-[a-z]{2,12}){1,2}-[0-9]{1,2}$`),
		want: "a region of AWS, as eu-central-1"},
	"instance": {pattern: regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}\.[a-z0-9-]{1,16}$`),
		want: "a type of instance of AWS, as in g5.xlarge"},
	"account": {pattern: regexp.MustCompile(`^[0-9]{12}$`),
		want: `the 12 digits of an account of AWS in quotes, as in "123456789012"`},
	"vpc": {pattern: regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`), want: "the id of a VPC, as in vpc-0123456789abcdef0"},
	"subnet": {pattern: regexp.MustCompile(`^subnet-[0-9a-f]{8,17}$`),
		want: "the id of a subnet, as in subnet-0123456789abcdef0"},
	"ami": {pattern: regexp.MustCompile(`^ami-[0-9a-f]{8,17}$`),
		want: "the id of an image of EC2, as in ami-0123456789abcdef0"},
	"amiOwner": {pattern: regexp.MustCompile(`^(?:amazon|self|[0-9]{12})$`),
		want: `amazon, self, or the 12 digits of an account in quotes`},
	"amiName": {pattern: regexp.MustCompile(`^[A-Za-z0-9*?()\[\] ./@_'-]{3,128}$`),
		want: "the name of an image of EC2, in which * stands for any text"},
	"bucket": {pattern: regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`),
		want: "the name of a bucket of S3, without s3://"},
	"policy": {pattern: regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:policy/[A-Za-z0-9/_+=,.@-]{1,200}$`),
		want: "the ARN of a policy, as in arn:aws:iam::123456789012:policy/aob/NAME"},
	"group": {pattern: regexp.MustCompile(`^(?:default|aob-[0-9A-Za-z._-]{1,60})$`),
		want: "default, or the name of a group of schedules that begins with aob-"},
	"device": {pattern: regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9./:=_-]{0,199}$`),
		want: "a device, as nvidia.com/gpu=all"},
	"version": {pattern: regexp.MustCompile(`^` + version + `$`),
		want: "a version of at most 32 letters, digits and .+_-"},
	"python": {pattern: regexp.MustCompile(`^3\.[1-9]?[0-9]$`), want: `a version of Python, as in "3.11"`},
	"capability": {pattern: regexp.MustCompile(`^[1-9][0-9]?\.[0-9]$`),
		want: `a compute capability of CUDA, as in "8.7"`},
	"licence": {pattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+-]{0,62}$`),
		want: "the SPDX name of a licence, as in Apache-2.0, of at most 63 letters, digits and .+-"},
	"label": {pattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/@-]{0,62}$`),
		want: "a name of at most 63 letters, digits and ._/@-"},
	"argument": {pattern: regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,62}$`),
		want: "a name of at most 63 letters, digits and _.-"},
	"class": {pattern: regexp.MustCompile(delivery.ClassPattern), most: delivery.MaxClass, want: delivery.WantClass},
	"slot": {pattern: regexp.MustCompile(`^$|` + delivery.ClassPattern), most: delivery.MaxClass,
		want: "empty, or " + delivery.WantClass},
	"port": {pattern: regexp.MustCompile(`^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$`), most: 4 * delivery.MaxClass,
		want: "the name of an input or output of a model: visible characters and spaces"},
	"category": {pattern: regexp.MustCompile(`^[\s\S]+$`), most: 1000,
		want: "a label of the dataset: a text of 1 to 1000 characters"},
	"metric": {pattern: regexp.MustCompile(delivery.ClassPattern), most: delivery.MaxClass + 20,
		want: "a metric, as mAP or AP/person"},
	"digest": {pattern: regexp.MustCompile(digestPattern), want: "a digest, sha256: and 64 lower-case hex digits"},
	"sha256": {pattern: regexp.MustCompile(`^[0-9a-f]{64}$`), want: "a SHA-256 in 64 lower-case hex digits"},
	"against": {pattern: regexp.MustCompile(`^(?:release|fp32|[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?@[1-9][0-9]{0,6})$`),
		want: "release, or a version that main has accepted, as in pallets@12"},
	"dataset": {pattern: regexp.MustCompile(`^` + segment + `(?:/` + segment + `)*$`), most: 512, why: whyDataset,
		want: "NAME or NAME/sub/folder, where NAME is in the server's configuration"},
	"start": {pattern: regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:@[1-9][0-9]{0,6})?$`),
		want: "none, release, a version as in pallets@12, or the name of weights in the server's configuration"},
	"segment": {pattern: regexp.MustCompile(`^` + segment + `$`), most: 100, want: "a name of letters, digits and ._-"},
	"time":    {pattern: regexp.MustCompile(`^(?:[01][0-9]|2[0-3]):[0-5][0-9]$`), want: `a time of day, as in "01:00"`},
	"zone": {pattern: regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,31}){0,2}$`),
		want: "a time zone, as in Europe/Berlin or UTC"},
	"scenes": {pattern: regexp.MustCompile(`^.*\(\?P?<(?:site|time)>.*$`), most: delivery.MaxScenePattern,
		want: "a regular expression with the group site or time, as in " +
			"'(?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6})'",
		why: whyScenes, valid: func(s string) bool { return whyScenes(s) == "" }},
	"text": {pattern: regexp.MustCompile(`^[\s\S]+$`), most: 2000, want: "text of 1 to 2000 characters"},
	"variable": {pattern: regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,63}$`), secret: true,
		want: "the name of an environment variable in capitals, as in AOB_TOKEN, and not the secret itself"},
	"path": {pattern: regexp.MustCompile(`^[^\x00-\x1f\x7f]+$`), most: 1024, secret: true,
		want: "the path of a file or folder"},
	"location": {pattern: regexp.MustCompile(`^(?:/|[a-z][a-z0-9+.-]*:)[^\x00-\x1f\x7f]*$`), most: 1024, secret: true,
		want: "an absolute path, as in /srv/datasets, or an address, as in s3://bucket"},
	"branch": {pattern: regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`), most: 200,
		want: "the name of a branch"},
	"url": {pattern: regexp.MustCompile(`^https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?$`), secret: true,
		want: "an address as https://gitea.example.com, without name and password"},
	"repo": {pattern: regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}$`), want: "owner/name"},
	"project": {pattern: regexp.MustCompile(`^(?:[1-9][0-9]{0,11}|[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+)$`), most: 500,
		want: "the path of a project with its groups, as vision/intent, or its number in quotes"},
	"author": {pattern: regexp.MustCompile(`^[^\p{C}\p{Z}<>](?:[^\p{C}\p{Zl}\p{Zp}<>]{0,98}[^\p{C}\p{Z}<>])?$`),
		want: "a name of at most 100 characters without < and >"},
	"email": {pattern: regexp.MustCompile(`^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,180}$`),
		want: "an e-mail address, as in aob@example.com"},
	"address": {pattern: regexp.MustCompile(`^(?:[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$`),
		want: "an address and a port, as in 127.0.0.1:8370"},
}

// holds reports whether text is of the form.
func (f *form) holds(s string) bool {
	return (f.most == 0 || utf8.RuneCountInString(s) <= f.most) && f.pattern.MatchString(s) &&
		(f.valid == nil || f.valid(s))
}

func whyScenes(value string) string {
	_, err := delivery.ScenePattern(value)
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		return blocked.What
	}
	return ""
}

func whyDataset(value string) string {
	switch {
	case strings.Contains(value, "://"):
		return "it must be a name, not an address"
	case strings.HasPrefix(value, "/"):
		return "it must be a name, not an absolute path"
	case strings.Contains("/"+value+"/", "/../") || strings.Contains("/"+value+"/", "/./"):
		return "it must not contain . or .. as a part"
	case strings.Contains("/"+value+"/", "//"):
		return "it must not contain an empty part"
	}
	return ""
}
