package intent

import (
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Cache keeps parsed files by path and content, so that only files that changed are parsed again. It is safe for use
// by several goroutines.
type Cache struct {
	options Options

	mu     sync.Mutex
	recent map[blob]*Doc
	older  map[blob]*Doc // used before recent was started; dropped when recent is full
	weight int           // of recent, in files without complaints

	near delivery.Intent // that new trees share with
}

type blob struct{ path, hash string }

// A generation holds more than one tree, so that what Has found is still there for Parse.
const generation = 2 * MaxFiles

// NewCache returns an empty cache.
func NewCache(o Options) *Cache {
	return &Cache{options: o, recent: make(map[blob]*Doc), older: make(map[blob]*Doc)}
}

// ParseAccepted reads a file of a commit that main accepted in the past. Today's
// trainers give its defaults; one that the server no longer has is no complaint.
func (c *Cache) ParseAccepted(f File) *Doc {
	o := c.options
	o.accepted = true
	return ParseFile(f, o)
}

// Has reports whether Parse needs no data for a file with this path and hash.
func (c *Cache) Has(path, hash string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.get(blob{path, hash})
	return ok
}

// get looks a file up; c.mu is held.
func (c *Cache) get(b blob) (*Doc, bool) {
	if b.hash == "" {
		return nil, false
	}
	if doc, ok := c.recent[b]; ok {
		return doc, true
	}
	doc, ok := c.older[b]
	if ok {
		c.put(b, doc)
	}
	return doc, ok
}

// put keeps a file; c.mu is held.
func (c *Cache) put(b blob, doc *Doc) {
	if c.weight >= generation {
		c.older, c.recent, c.weight = c.recent, make(map[blob]*Doc), 0
	}
	if _, there := c.recent[b]; !there {
		c.weight += 1 + len(doc.complaints)/4 // a complaint takes about a quarter of what a file does
	}
	c.recent[b] = doc
}

// Warm parses files ahead of a Parse that needs them, a few at a time.
func (c *Cache) Warm(files []File) { c.docs(files) }

// Parse is [Parse] with what the cache knows.
func (c *Cache) Parse(files []File) (delivery.Intent, []delivery.Complaint) {
	if complaints := bounded(files); len(complaints) > 0 {
		return delivery.Intent{}, complaints
	}
	docs := c.docs(files)
	c.mu.Lock()
	near := c.near
	c.mu.Unlock()
	in, complaints := joinNear(docs, near)
	if !shares(in, near) && 2*in.Files.Len() > near.Files.Len() {
		c.mu.Lock()
		c.near = in // the trees that follow are likely to differ little from it
		c.mu.Unlock()
	}
	return in, complaints
}

// shares reports whether two trees share what they have in common.
func shares(a, b delivery.Intent) bool {
	return a.Models.Shares(b.Models) && a.Gates.Shares(b.Gates) && a.Fleets.Shares(b.Fleets) &&
		a.Releases.Shares(b.Releases) && a.Quarantines.Shares(b.Quarantines) && a.Files.Shares(b.Files)
}

// docs parses the files that the cache does not have. It keeps regular files with a hash.
func (c *Cache) docs(files []File) []*Doc {
	docs := make([]*Doc, len(files))
	var missing []File
	var places []int // of the missing files in docs
	c.mu.Lock()
	for i, f := range files {
		doc, ok := c.get(blob{f.Path, f.Hash})
		if docs[i] = doc; !ok || !f.Mode.IsRegular() {
			missing, places = append(missing, f), append(places, i)
		}
	}
	c.mu.Unlock()

	parsed := parseAll(missing, c.options)

	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range missing {
		docs[places[i]] = parsed[i]
		if f.Hash != "" && f.Mode.IsRegular() && (f.Data != nil || f.Size == 0 || f.Size > MaxFileSize) {
			c.put(blob{f.Path, f.Hash}, parsed[i])
		}
	}
	return docs
}
