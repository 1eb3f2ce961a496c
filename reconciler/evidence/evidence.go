package evidence

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Bundles is the store of bundles and their referrers.
type Bundles interface {
	// Attach attaches an envelope to a bundle as a referrer. Attaching the same one again does nothing.
	Attach(ctx context.Context, bundle delivery.Digest, artifactType string, envelope []byte) (delivery.Digest, error)
	// Referrers lists (bundle, referrer) of an artifact type, in the order in which they were attached.
	Referrers(ctx context.Context, artifactType string) (iter.Seq2[delivery.Digest, delivery.Digest], error)
	// Attached lists the referrers of one bundle with an artifact type, in the order in which they were attached.
	Attached(ctx context.Context, bundle delivery.Digest, artifactType string) ([]delivery.Attached, error)
	// Since lists the referrers of all types after the first n, in the order in which they were attached, with the
	// list's generation and length. If the generation is not the given one, the list is another, and all are listed.
	Since(ctx context.Context, generation, n int) (list iter.Seq[delivery.Attached], now, length int, err error)
	// ArtifactTypes returns the artifact types of all referrers, sorted.
	ArtifactTypes(ctx context.Context) ([]string, error)
	// Attachment returns a referrer's envelope and the bundle to which it is attached.
	Attachment(ctx context.Context, referrer delivery.Digest) (bundle delivery.Digest, envelope []byte, err error)
	// Present returns a function that reports whether the file of a blob is there, without reading it.
	Present() (func(delivery.Digest) bool, error)
}

// A Store signs statements about bundles and reads them. Its methods may be called from any goroutine.
type Store struct {
	// Cache is a folder for what was verified, so that a restart need not verify it again; empty: there is none. It is
	// not trusted: see cache.
	Cache string
	Log   *slog.Logger // nil: nothing is logged

	bundles Bundles
	signer  *trust.Key
	trusted []trust.PublicKey

	mu       sync.Mutex
	cache    *cache
	shared   *sharer
	doubted  map[delivery.Digest]bool // referrers whose files are not as the cache says
	notes    map[delivery.Digest][]byte
	recheck  []delivery.Attached // statements out of the cache whose files were not read yet
	list     listed
	scored   map[delivery.Digest]statement // by referrer; scores of the bundles of the last call
	newer    []delivery.NewerStatements    // the newer statements in snapshot
	snapshot *Snapshot
	news     []Statement // of the last changes, the oldest first
	newsFrom int         // the version after which news has everything
}

// listed is what a snapshot was made of.
type listed struct {
	generation, length int        // of the list of referrers
	referrers          [][32]byte // all, in its order
	payloads           map[[32]byte]struct{}
}

// A statement is the result of reading one referrer: a value, or why it was skipped.
type statement struct {
	payload delivery.Digest // of the signed payload
	value   any             // points to the predicate
	why     string          // empty if the statement is valid
	record  record          // for the cache
}

// Skipped is a statement that is not valid.
type Skipped struct {
	Bundle   delivery.Digest `json:"bundle"`
	Referrer delivery.Digest `json:"referrer"`
	Why      string          `json:"why"`
}

// New returns a store. Statements are valid if one of the trusted keys or the signer
// signed them. If signer is nil, the store can only read.
func New(bundles Bundles, signer *trust.Key, trusted []trust.PublicKey) *Store {
	trusted = slices.Clone(trusted)
	if signer != nil {
		trusted = append(trusted, signer.Public())
	}
	return &Store{
		bundles: bundles,
		signer:  signer,
		trusted: trusted,
		shared:  newSharer(),
		doubted: map[delivery.Digest]bool{},
		scored:  map[delivery.Digest]statement{},
	}
}

// Sign signs a statement about a bundle and attaches it durably. It does nothing if an equal statement, signed by any
// trusted key, exists. It returns an error instead of signing a statement that would be skipped on reading.
func (s *Store) Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error {
	if s.signer == nil {
		return delivery.Blockedf("give the server its evidence key", "a statement about bundle %s cannot be signed: "+
			"there is no evidence key", bundle)
	}
	if err := s.sign(ctx, bundle, predicateType, predicate); err != nil {
		return fmt.Errorf("sign a statement about bundle %s: %w", bundle, err)
	}
	return nil
}

func (s *Store) sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error {
	if _, err := delivery.ParseDigest(string(bundle)); err != nil {
		return err
	}
	k, err := kindOf(predicateType)
	if err != nil {
		return err
	}
	payload, err := encodeStatement(k, bundle, predicate)
	if err != nil {
		return err
	}
	if _, _, err := decodeStatement(k, bundle, payload); err != nil {
		return err
	}
	exists, err := s.has(ctx, k, bundle, delivery.Sum(payload))
	if err != nil || exists {
		return err
	}
	envelope, err := trust.Sign(s.signer, delivery.StatementPayload, payload)
	if err != nil {
		return err
	}
	_, err = s.bundles.Attach(ctx, bundle, k.artifactType, envelope)
	return err
}

// has reports whether a valid statement with this payload is stored.
func (s *Store) has(ctx context.Context, k kind, bundle, payload delivery.Digest) (bool, error) {
	list, err := s.bundles.Attached(ctx, bundle, k.artifactType)
	if err != nil {
		return false, err
	}
	for _, a := range list {
		if st, _ := s.readStatement(ctx, k, bundle, a.Referrer); st.why == "" && st.payload == payload {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// readStatement reads and verifies one referrer. No other function does. final is false if
// the referrer could not be read, so that the next attempt may succeed.
func (s *Store) readStatement(ctx context.Context, k kind, bundle, referrer delivery.Digest) (st statement,
	final bool) {
	attachedTo, envelope, err := s.bundles.Attachment(ctx, referrer)
	if err != nil {
		return statement{why: err.Error()}, false
	}
	if attachedTo != bundle {
		return statement{why: fmt.Sprintf("it is listed under %s, but attached to %s", bundle, attachedTo)}, true
	}
	payload, key, err := trust.Verify(envelope, delivery.StatementPayload, s.trusted)
	if err != nil {
		return statement{why: err.Error()}, true
	}
	value, predicate, err := decodeStatement(k, bundle, payload)
	if err != nil {
		return statement{why: err.Error()}, true
	}
	sum := delivery.Sum(payload)
	return statement{payload: sum, value: value, record: record{referrer: referrer, bundle: bundle,
		envelope: delivery.Sum(envelope), payload: sum, kind: k.artifactType, key: key, content: predicate}}, true
}

// Scores returns the valid scores of the given bundles, by score key, and the statements
// of scores that were skipped. It keeps them in memory until the next call, which reads
// only statements that it has not read before. The first statement with a key is used.
func (s *Store) Scores(ctx context.Context, bundles []delivery.Digest) (map[delivery.Digest]delivery.Scores, []Skipped,
	error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[delivery.Digest]statement{}
	byKey := map[delivery.Digest]delivery.Scores{}
	var skipped []Skipped
	wanted := slices.Clone(bundles)
	slices.Sort(wanted)
	var list []delivery.Attached
	for _, bundle := range slices.Compact(wanted) {
		of, err := s.bundles.Attached(ctx, bundle, scores.artifactType)
		if err != nil {
			return nil, nil, fmt.Errorf("read scores: %w", err)
		}
		list = append(list, of...)
	}
	slices.SortFunc(list, func(a, b delivery.Attached) int { return cmp.Compare(a.At, b.At) })
	for _, a := range list {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		st, final := s.scored[a.Referrer]
		if !final {
			st, final = s.readStatement(ctx, scores, a.Bundle, a.Referrer)
			st.record = record{}
		}
		if final {
			keep[a.Referrer] = st
		}
		if st.why != "" {
			skipped = append(skipped, Skipped{a.Bundle, a.Referrer, st.why})
			continue
		}
		sc := st.value.(*delivery.Scores)
		if _, there := byKey[sc.Key]; !there {
			byKey[sc.Key] = *sc
		}
	}
	s.scored = keep
	return byKey, skipped, nil
}
