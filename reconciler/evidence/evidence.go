package evidence

import (
	"context"
	"fmt"
	"iter"
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
	// ArtifactTypes returns the artifact types of all referrers, sorted.
	ArtifactTypes(ctx context.Context) ([]string, error)
	// Attachment returns a referrer's envelope and the bundle to which it is attached.
	Attachment(ctx context.Context, referrer delivery.Digest) (bundle delivery.Digest, envelope []byte, err error)
}

// A Store signs statements about bundles and reads them. Its methods may be called from any goroutine.
type Store struct {
	bundles Bundles
	signer  *trust.Key
	trusted []trust.PublicKey

	mu       sync.Mutex
	read     map[delivery.Digest]statement // by referrer; all kinds except scores
	scored   map[delivery.Digest]statement // by referrer; scores of the bundles of the last call
	listed   []reference                   // the referrers in snapshot
	newer    []delivery.NewerStatements    // the newer statements in snapshot
	snapshot *Snapshot
}

// A reference is one entry of the list of referrers.
type reference struct {
	bundle, referrer delivery.Digest
	kind             int // index in snapshotKinds
}

// A statement is the result of reading one referrer: a value, or why it was skipped.
type statement struct {
	payload delivery.Digest // of the signed payload
	value   any
	why     string // empty if the statement is valid
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
		read:    map[delivery.Digest]statement{},
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
	if _, err := decodeStatement(k, bundle, payload); err != nil {
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
	list, err := s.bundles.Referrers(ctx, k.artifactType)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, referrer := range list {
		if of != bundle {
			continue
		}
		st, known := s.read[referrer]
		if !known {
			st, known = s.scored[referrer]
		}
		if !known {
			st, _ = s.readStatement(ctx, k, bundle, referrer)
		}
		if st.why == "" && st.payload == payload {
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
	payload, _, err := trust.Verify(envelope, delivery.StatementPayload, s.trusted)
	if err != nil {
		return statement{why: err.Error()}, true
	}
	value, err := decodeStatement(k, bundle, payload)
	if err != nil {
		return statement{why: err.Error()}, true
	}
	return statement{payload: delivery.Sum(payload), value: value}, true
}

// Scores returns the valid scores of the given bundles, by score key, and the statements
// of scores that were skipped. It keeps them in memory until the next call, which reads
// only statements that it has not read before. The first statement with a key is used.
func (s *Store) Scores(ctx context.Context, bundles []delivery.Digest) (map[delivery.Digest]delivery.Scores, []Skipped,
	error) {
	wanted := map[delivery.Digest]bool{}
	for _, b := range bundles {
		wanted[b] = true
	}
	list, err := s.bundles.Referrers(ctx, scores.artifactType)
	if err != nil {
		return nil, nil, fmt.Errorf("read scores: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[delivery.Digest]statement{}
	byKey := map[delivery.Digest]delivery.Scores{}
	var skipped []Skipped
	for bundle, referrer := range list {
		if !wanted[bundle] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		st, final := s.scored[referrer]
		if !final {
			st, final = s.readStatement(ctx, scores, bundle, referrer)
		}
		if final {
			keep[referrer] = st
		}
		if st.why != "" {
			skipped = append(skipped, Skipped{bundle, referrer, st.why})
			continue
		}
		sc := st.value.(delivery.Scores)
		if _, there := byKey[sc.Key]; !there {
			byKey[sc.Key] = sc
		}
	}
	s.scored = keep
	return byKey, skipped, nil
}
