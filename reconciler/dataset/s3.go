package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/delivery"
)

// S3 is the source s3: datasets in buckets of S3, or of a store with the same API. A location is
//
//	s3://BUCKET/PREFIX?region=NAME&endpoint=https://HOST&secrets=NAME
//
// where all but the bucket may be left out. A reference goes on with a prefix, whose objects are the files of the
// dataset, or with an archive, or with a folder in an archive. With secrets=NAME the secrets NAME_ACCESS_KEY_ID and
// NAME_SECRET_ACCESS_KEY are the credentials; without it they are what AWS's SDK finds on the machine.
//
// The version of a dataset is known from the list of its objects, before anything is downloaded.
type S3 struct {
	Connect func(ctx context.Context, at BucketAddress) (Bucket, error)
}

// A BucketAddress says where a bucket is, and who reads it.
type BucketAddress struct {
	Bucket   string
	Endpoint string // of another store than Amazon's; "" for Amazon's
	Region   string // "" for that of the machine's configuration
	KeyID    string // "" for the credentials that are found on the machine
	Key      string
}

// A Bucket is a bucket that is read.
type Bucket interface {
	// List calls each for every object whose key begins with a prefix, in the order of their keys, until it returns an
	// error. version changes if the content of an object does.
	List(ctx context.Context, prefix string, each func(key string, size int64, version string) error) error
	// Read opens an object in one version, from an offset. It is an error if the object is not in this version any
	// more.
	Read(ctx context.Context, key, version string, offset int64) (io.ReadCloser, error)
}

// A bucketLocation is a parsed location.
type bucketLocation struct {
	BucketAddress
	prefix  string // with a slash at its end, or ""
	secrets string // what the names of the secrets begin with, or ""
}

var (
	bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)
	regionName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	secretName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,40}$`)
)

// parseBucket parses a location. Errors do not repeat it, since it may have a secret that does not belong there.
func parseBucket(location string) (b bucketLocation, err error) {
	const do = "want s3://BUCKET/PREFIX?region=NAME&endpoint=https://HOST&secrets=NAME in the server's configuration," +
		" of which all but the bucket may be left out"
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "s3" || u.User != nil || u.Fragment != "" || !bucketName.MatchString(u.Host) {
		return b, delivery.Blockedf(do, "its location is not the address of a bucket")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return b, delivery.Blockedf(do, "what follows ? in its location is not understood")
	}
	for name, values := range query {
		value := values[len(values)-1]
		ok := len(values) == 1
		switch name {
		case "region":
			b.Region, ok = value, ok && regionName.MatchString(value)
		case "endpoint":
			at, err := url.Parse(value)
			b.Endpoint, ok = value, ok && err == nil && (at.Scheme == "https" || at.Scheme == "http") &&
				at.Host != "" && at.User == nil && at.RawQuery == ""
		case "secrets":
			b.secrets, ok = value, ok && secretName.MatchString(value)
		default:
			ok = false
		}
		if !ok {
			return b, delivery.Blockedf(do, "%q in its location is not understood", cutName(name))
		}
	}
	b.Bucket = u.Host
	if b.prefix = strings.Trim(u.Path, "/"); b.prefix != "" {
		b.prefix += "/"
	}
	return b, nil
}

// ParseBucket parses the address of a bucket, as locations have it. names are those of the secrets that it needs: the
// key's id and the key.
func ParseBucket(location string) (at BucketAddress, prefix string, names []string, err error) {
	b, err := parseBucket(location)
	return b.BucketAddress, b.prefix, b.names(), err
}

func (b bucketLocation) names() []string {
	if b.secrets == "" {
		return nil
	}
	return []string{b.secrets + "_ACCESS_KEY_ID", b.secrets + "_SECRET_ACCESS_KEY"}
}

// Secrets implements [Source].
func (S3) Secrets(location string) []string {
	b, err := parseBucket(location)
	if err != nil {
		return nil // Open says so
	}
	return b.names()
}

// connect returns the bucket of a location.
func (s S3) connect(ctx context.Context, ref Reference) (Bucket, bucketLocation, error) {
	b, err := parseBucket(ref.Location)
	if err != nil {
		return nil, b, err
	}
	for i, name := range b.names() {
		value, err := ref.Secret(name)
		if err != nil {
			return nil, b, err
		}
		*[]*string{&b.KeyID, &b.Key}[i] = strings.TrimSpace(value)
	}
	bucket, err := s.Connect(ctx, b.BucketAddress)
	return maskedBucket{bucket, delivery.NewMask(slices.Values([]string{b.Key}))}, b, err
}

// A maskedBucket is a bucket whose errors do not have its key.
type maskedBucket struct {
	Bucket
	mask delivery.Mask
}

func (m maskedBucket) List(ctx context.Context, prefix string, each func(string, int64, string) error) error {
	return m.mask.Error(m.Bucket.List(ctx, prefix, each))
}

func (m maskedBucket) Read(ctx context.Context, key, version string, offset int64) (io.ReadCloser, error) {
	body, err := m.Bucket.Read(ctx, key, version, offset)
	return body, m.mask.Error(err)
}

// errEnough ends a list that is long enough.
var errEnough = errors.New("enough")

// Check implements [Source].
func (s S3) Check(ctx context.Context, ref Reference) (string, error) {
	bucket, at, err := s.connect(ctx, ref)
	if err != nil {
		return "", err
	}
	found := false
	err = bucket.List(ctx, at.prefix, func(string, int64, string) error {
		found = true
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return "", err
	}
	if !found {
		return "", delivery.Blockedf("check the prefix in datasets.s3, or put the datasets there",
			"bucket %s has no object that begins with %q", at.Bucket, at.prefix)
	}
	return "s3://" + at.Bucket + "/" + at.prefix + " can be listed", nil
}

// A bucketObject is an object of a bucket.
type bucketObject struct {
	key, version string
	size         int64
	name         string // of the file in the dataset
	sum          string // its SHA-256, if that is known
}

// Open implements [Source].
func (s S3) Open(ctx context.Context, ref Reference) (Version, error) {
	bucket, at, err := s.connect(ctx, ref)
	if err != nil {
		return Version{}, err
	}
	prefix := at.prefix + ref.Path
	if archive, below, ok := cutArchive(ref.Path); ok {
		return openArchive(ctx, bucket, at.prefix+archive, below)
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	var objects []bucketObject
	var total int64
	listed, names := 0, 0
	id := sha256.New()
	err = bucket.List(ctx, prefix, func(key string, size int64, version string) error {
		if listed++; listed > 2*maxFiles { // folders count too
			return delivery.Blockedf("split the dataset", "it has more than %d files and folders", 2*maxFiles)
		}
		if names += len(key) + len(version); names > maxNames {
			return delivery.Blockedf("give its objects shorter names", "the list of its objects has more than %d MB",
				maxNames/1_000_000)
		}
		if strings.HasSuffix(key, "/") && size == 0 { // a folder, as consoles make them
			return nil
		}
		if len(objects) == maxFiles {
			return delivery.Blockedf("split the dataset", "it has more than %d files", maxFiles)
		}
		objects, total = append(objects, bucketObject{key: key, version: version, size: size,
			name: strings.TrimPrefix(key, prefix)}), total+size
		fmt.Fprintf(id, "%q %d %q\n", strings.TrimPrefix(key, prefix), size, version)
		return nil
	})
	if err != nil {
		return Version{}, err
	}
	if len(objects) == 0 {
		return Version{}, delivery.Blockedf("check the name; an archive ends in .zip, .tar, .tar.gz or .tgz",
			"the bucket has nothing of that name")
	}
	return Version{ID: fmt.Sprintf("%x", id.Sum(nil)), Fetch: func(ctx context.Context, to *Writer) error {
		return fetchObjects(ctx, bucket, objects, total, to)
	}}, nil
}

// cutArchive cuts the path of a reference after an archive.
func cutArchive(name string) (archive, below string, ok bool) {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		for _, ending := range []string{".zip", ".tar", ".tar.gz", ".tgz"} {
			if strings.HasSuffix(strings.ToLower(part), ending) {
				return path.Join(parts[:i+1]...), path.Join(parts[i+1:]...), true
			}
		}
	}
	return "", "", false
}

func openArchive(ctx context.Context, bucket Bucket, key, below string) (Version, error) {
	var o bucketObject
	err := bucket.List(ctx, key, func(k string, size int64, version string) error { // the key itself is the first
		if k == key {
			o = bucketObject{key: k, version: version, size: size}
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return Version{}, err
	}
	if o.key == "" {
		return Version{}, delivery.Blockedf("check the name", "the bucket has no archive of that name")
	}
	return Version{ID: fmt.Sprintf("%s %d %s", o.version, o.size, below), Fetch: func(ctx context.Context,
		to *Writer) error {
		if o.size > to.bytes {
			return tooLarge()
		}
		spool, err := to.Spool()
		if err != nil {
			return err
		}
		defer spool.Close()
		in := &objectReader{ctx: ctx, bucket: bucket, object: o, read: countDownload(to, o.size)}
		defer in.close()
		if _, err := io.Copy(spool, roomReader{in, to}); err != nil {
			return err
		}
		return unpackArchive(ctx, spool, below, to)
	}}, nil
}

// countDownload returns a function that tells how much was downloaded, from the bytes that were.
func countDownload(to *Writer, total int64) func(n int) {
	var done int64
	return func(n int) {
		done += int64(n)
		to.tell(Downloading, int(done/1e6), int(total/1e6))
	}
}

// Small objects are read several at a time, since each takes a while to begin. These are their limits.
const (
	smallObject  = 4 << 20 // bytes
	objectsAhead = 64
	atATime      = 16
)

// fetchObjects writes the objects of a dataset, in their order.
func fetchObjects(ctx context.Context, bucket Bucket, objects []bucketObject, total int64, to *Writer) error {
	if total > to.bytes {
		return tooLarge()
	}
	tell := countDownload(to, total)
	for batch := range slices.Chunk(objects, objectsAhead) {
		small := make([][]byte, len(batch))
		g, inner := errgroup.WithContext(ctx)
		g.SetLimit(atATime)
		for i, o := range batch {
			if o.size <= smallObject {
				g.Go(func() (err error) {
					small[i], err = readObject(inner, bucket, o)
					return err
				})
			}
		}
		if err := g.Wait(); err != nil {
			return cmp.Or(ctx.Err(), err)
		}
		for i, o := range batch {
			var content io.Reader = strings.NewReader(string(small[i]))
			if o.size > smallObject {
				in := &objectReader{ctx: ctx, bucket: bucket, object: o, read: tell}
				defer in.close()
				content = in
			}
			if err := to.Add(o.name, content); err != nil {
				return err
			}
			if o.sum != "" && to.list.Files[o.name].SHA256 != o.sum {
				return fmt.Errorf("object %s does not have the digest that its name says", shownCut(o.key))
			}
			if o.size <= smallObject {
				tell(len(small[i]))
			}
		}
	}
	return nil
}

// readObject reads a small object. What does not have its checksum is read again.
func readObject(ctx context.Context, bucket Bucket, o bucketObject) ([]byte, error) {
	for try := 0; ; try++ {
		in := &objectReader{ctx: ctx, bucket: bucket, object: o, read: func(int) {}}
		data, err := io.ReadAll(in)
		in.close()
		if err == nil || try == 2 {
			return data, err
		}
		if _, blocked := errors.AsType[delivery.Blocked](err); blocked || ctx.Err() != nil {
			return nil, err
		}
	}
}

// An objectReader reads an object. After a connection that broke it goes on where it was.
type objectReader struct {
	ctx    context.Context
	bucket Bucket
	object bucketObject
	read   func(n int)

	body   io.ReadCloser
	offset int64
	failed int
}

func (r *objectReader) Read(p []byte) (int, error) {
	for {
		if r.body == nil {
			body, err := r.bucket.Read(r.ctx, r.object.key, r.object.version, r.offset)
			if err != nil {
				return 0, fmt.Errorf("object %s: %w", shownCut(r.object.key), err)
			}
			r.body = body
		}
		n, err := r.body.Read(p)
		r.offset += int64(n)
		if n > 0 {
			r.failed = 0
			r.read(n)
		}
		switch {
		case r.offset > r.object.size:
			return n, fmt.Errorf("object %s is longer than its list says", shownCut(r.object.key))
		case err == io.EOF && r.offset == r.object.size || err == nil && n > 0:
			return n, err
		case err == nil:
			continue
		case r.offset == r.object.size: // all was read, and it does not have its checksum
			return n, fmt.Errorf("object %s: %w", shownCut(r.object.key), err)
		}
		r.close()
		if r.failed++; r.failed >= maxTries {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("object %s: %w", shownCut(r.object.key), err)
		}
		if err := pause(r.ctx, r.failed-1); err != nil || n > 0 {
			return n, err
		}
	}
}

func (r *objectReader) close() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}
