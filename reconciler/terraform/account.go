package terraform

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Account is the account of AWS in which trainings take place, as the server's configuration has it. The fields that
// name things of the account are values of the module train-aws-ec2; its variables.tf says what each may be.
type Account struct {
	Controller string // the server's name: the tag aob:controller of all that it makes
	ID         string // the number of the account; nothing is made in another
	Region     string
	Partition  string // "" is aws

	VPC           string
	Subnet        string
	PublicAddress bool // for a subnet without NAT

	AMI      string // an image of one's own; "" for the newest of AMIOwner and AMIName
	AMIOwner string // "" is amazon
	AMIName  string // "" is the Deep Learning Base image, with Ubuntu 22.04
	DiskGB   int    // 0 is 150

	Runs   string // the bucket of inputs and outputs: output runs_bucket of the module artifacts
	States string // the bucket of Terraform's states: output states_bucket
	Prefix string // of all keys in both buckets, with a slash at its end; "" is the controller's name

	// Repositories has the ARNs of ECR repositories by the name of an image, without its digest; an image of another
	// registry has none.
	Repositories        map[string]string
	PermissionsBoundary string // ARN of the policy that bounds the runs' roles, or ""
	ScheduleGroup       string // "" is default

	// Mirror is a folder with Terraform's provider hashicorp/aws, as "terraform providers mirror" makes it.
	Mirror string
	// Endpoint is the address of a server in place of Amazon's; "" for Amazon's.
	Endpoint string

	Home    string        // AOB's folder on the instance; "" is /opt/aob
	Boot    time.Duration // the longest until the instance is heard of; 0 is 10 minutes
	Silence time.Duration // the longest between two signs of life, in whole minutes; 0 is 15 minutes
	Every   time.Duration // how often the account and the bucket are asked; 0 is 15 s
	Tries   int           // attempts that AWS may end or not start, before a person must act; 0 is 5
}

// filled returns the account with its defaults.
func (a Account) filled() Account {
	a.Partition, a.AMIOwner = cmp.Or(a.Partition, "aws"), cmp.Or(a.AMIOwner, "amazon")
	a.AMIName = cmp.Or(a.AMIName, "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *")
	a.DiskGB, a.Prefix, a.ScheduleGroup = cmp.Or(a.DiskGB, 150), cmp.Or(a.Prefix, a.Controller+"/"),
		cmp.Or(a.ScheduleGroup, "default")
	a.Home, a.Boot = cmp.Or(a.Home, "/opt/aob"), cmp.Or(a.Boot, 10*time.Minute)
	a.Silence, a.Every = cmp.Or(a.Silence, 15*time.Minute), cmp.Or(a.Every, 15*time.Second)
	a.Tries = cmp.Or(a.Tries, 5)
	return a
}

// AWS is an account of AWS, through the module train-aws-ec2: each attempt is one instance of EC2. A training on it
// must have a [trainer.Request.Quote].
type AWS struct {
	Account Account
	Things  Things
	Objects Objects // of the bucket Account.Runs

	versions map[string]string // of the objects that this process has copied, by key
	heard    time.Time         // when one of them was new
}

// Things are what runs have in an account. [cloud.Account] is one.
type Things interface {
	// Variables returns the environment variables by which Terraform reaches the account: credentials that are valid
	// now, and the address.
	Variables(ctx context.Context) (map[string]string, error)
	// OfRun lists all that has the tags of a controller and a run in a region, also what has ended shortly before.
	OfRun(ctx context.Context, region, controller, run string) ([]delivery.Thing, error)
	// EndThing ends one of them. It may be repeated, and something that is gone is no error.
	EndThing(ctx context.Context, region string, thing delivery.Thing) error
	// EndSchedule removes the schedule of a run in a group by its name. A missing one is no error, and another server's
	// stays.
	EndSchedule(ctx context.Context, region, controller, group, name string) error
	// EndRest ends what an attempt has besides: security group, launch template, roles. It may be repeated.
	EndRest(ctx context.Context, region, controller, run, attempt string) error
}

// Objects are a bucket. [cloud.Bucket] is one.
type Objects interface {
	// List calls each for every object whose key begins with a prefix, in the order of their keys.
	List(ctx context.Context, prefix string, each func(key string, size int64, version string) error) error
	// Read opens an object from an offset, in any version if version is "". A missing object is fs.ErrNotExist.
	Read(ctx context.Context, key, version string, offset int64) (io.ReadCloser, error)
	// Write writes an object, whose bytes have a SHA-256. If fresh is set, an object that is there stays as it is, and
	// the error is fs.ErrExist.
	Write(ctx context.Context, key string, body io.ReadSeeker, size int64, sum [sha256.Size]byte, fresh bool) error
	// Remove removes an object. A missing one is no error.
	Remove(ctx context.Context, key string) error
}
