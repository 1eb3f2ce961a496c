package intent

import (
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Cache keeps parsed files by path and content, so that a tree which differs
// in one file from one seen before costs one file and a Join. It is safe for
// use by many goroutines.
type Cache struct {
	options Options

	mu     sync.Mutex
	recent map[blob]*Doc
	older  map[blob]*Doc // dropped when recent is full: what was not asked for since goes
	weight int           // of recent, in files without complaints
}

type blob struct{ path, hash string }

// A generation holds more than one tree, so what Has found is still there when
// Parse asks.
const generation = 2 * MaxFiles

// NewCache returns an empty cache. Its options hold for all it parses.
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

// Has reports whether a file with this path and hash can be parsed without its
// data.
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

// Warm parses files ahead of a Parse that needs them, a few at a time. Only
// regular files with a hash are kept.
func (c *Cache) Warm(files []File) {
	docs := parseAll(files, c.options)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range files {
		c.keep(f, docs[i])
	}
}

// keep keeps a file where its content decides what it says; c.mu is held.
func (c *Cache) keep(f File, doc *Doc) {
	if f.Hash != "" && f.Mode == Regular && (f.Data != nil || f.Size == 0 || f.Size > MaxFileSize) {
		c.put(blob{f.Path, f.Hash}, doc)
	}
}

// Parse is [Parse] with what the cache knows. Only regular files with a hash are
// kept.
func (c *Cache) Parse(files []File) (delivery.Intent, []delivery.Complaint) {
	if complaints := bounded(files); len(complaints) > 0 {
		return delivery.Intent{}, complaints
	}
	docs := make([]*Doc, len(files))
	var missing []int
	c.mu.Lock()
	for i, f := range files {
		doc, ok := c.get(blob{f.Path, f.Hash})
		if docs[i] = doc; !ok || f.Mode != Regular {
			missing = append(missing, i)
		}
	}
	c.mu.Unlock()

	unparsed := make([]File, len(missing))
	for i, m := range missing {
		unparsed[i] = files[m]
	}
	parsed := parseAll(unparsed, c.options)

	c.mu.Lock()
	for i, m := range missing {
		docs[m] = parsed[i]
		c.keep(files[m], parsed[i])
	}
	c.mu.Unlock()
	return Join(docs)
}
