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

// Bundles is what evidence needs of where bundles are kept.
type Bundles interface {
	// Attach hangs an envelope on a bundle; the same one twice is one.
	Attach(ctx context.Context, bundle delivery.Digest, artifactType string, envelope []byte) (delivery.Digest, error)
	// Referrers lists (bundle, referrer) of a type, in the order attached.
	Referrers(ctx context.Context, artifactType string) (iter.Seq2[delivery.Digest, delivery.Digest], error)
	// ArtifactTypes returns the types under which something hangs on bundles, sorted.
	ArtifactTypes(ctx context.Context) ([]string, error)
	// Attachment returns a referrer's envelope and the bundle that it hangs on.
	Attachment(ctx context.Context, referrer delivery.Digest) (bundle delivery.Digest, envelope []byte, err error)
}

// A Store signs statements about bundles and reads them back. Its methods may be
// called at once.
type Store struct {
	bundles Bundles
	signer  *trust.Key
	trusted []trust.PublicKey

	mu       sync.Mutex
	read     map[delivery.Digest]statement // by referrer; of every kind but scores
	scored   map[delivery.Digest]statement // by referrer; of the bundles last asked for
	listed   []reference                   // what snapshot was made of
	newer    []delivery.NewerStatements    // and what a newer aob has attached besides
	snapshot *Snapshot
}

// A reference is one referrer as it is listed.
type reference struct {
	bundle, referrer delivery.Digest
	kind             int // in snapshotKinds
}

// A statement is what reading one referrer gave: a value, or why there is none.
type statement struct {
	payload delivery.Digest // of the signed bytes: says the same, is the same
	value   any
	why     string // skipped, and this is why
}

// Skipped is a statement that does not count.
type Skipped struct {
	Bundle   delivery.Digest `json:"bundle"`
	Referrer delivery.Digest `json:"referrer"`
	Why      string          `json:"why"`
}

// New returns a store on bundles. Statements count where one of the trusted keys
// signed them, or the signer itself. Without a signer the store only reads.
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

// SignTraining says how a bundle came to be.
func (s *Store) SignTraining(ctx context.Context, t delivery.Training) error {
	return s.Sign(ctx, t.Result.Bundle, delivery.TrainingType, t)
}

// SignScores says what a bundle measured.
func (s *Store) SignScores(ctx context.Context, sc delivery.Scores) error {
	return s.Sign(ctx, sc.Input.Bundle, delivery.ScoresType, sc)
}

// SignVerdict says what a gate answered about a bundle.
func (s *Store) SignVerdict(ctx context.Context, bundle delivery.Digest, v delivery.Verdict) error {
	return s.Sign(ctx, bundle, delivery.VerdictType, v)
}

// SignRelease says that aob/release turned green for a bundle.
func (s *Store) SignRelease(ctx context.Context, r delivery.ReleaseStatement) error {
	return s.Sign(ctx, r.Bundle, delivery.ReleaseType, r)
}

// SignAcceptance says that main took a release.
func (s *Store) SignAcceptance(ctx context.Context, a delivery.Acceptance) error {
	return s.Sign(ctx, a.Bundle, delivery.AcceptanceType, a)
}

// SignAbort says that a fleet fell back from a bundle.
func (s *Store) SignAbort(ctx context.Context, a delivery.Abort) error {
	return s.Sign(ctx, a.Bundle, delivery.AbortType, a)
}

// Sign signs a statement about a bundle and attaches it, durably. A statement
// that is there already, signed by any trusted key, is not attached again; what
// would be skipped on reading is not signed.
func (s *Store) Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error {
	if s.signer == nil {
		return delivery.Blockedf("give the server its evidence key", "nothing can be signed about bundle %s", bundle)
	}
	if err := s.sign(ctx, bundle, predicateType, predicate); err != nil {
		return fmt.Errorf("sign about bundle %s: %w", bundle, err)
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

// has reports whether a statement with this payload is stored and counts.
func (s *Store) has(ctx context.Context, k kind, bundle, payload delivery.Digest) (bool, error) {
	list, err := s.bundles.Referrers(ctx, k.artifactType)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for on, referrer := range list {
		if on != bundle {
			continue
		}
		st, known := s.read[referrer]
		if !known {
			st, known = s.scored[referrer]
		}
		if !known {
			st, _ = s.readStatement(ctx, k, on, referrer)
		}
		if st.why == "" && st.payload == payload {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// readStatement reads one referrer and says what it counts for. It is the only
// function that does. final is false where another try may give another answer.
func (s *Store) readStatement(ctx context.Context, k kind, bundle, referrer delivery.Digest) (st statement,
	final bool) {
	on, envelope, err := s.bundles.Attachment(ctx, referrer)
	if err != nil {
		return statement{why: err.Error()}, false
	}
	if on != bundle {
		return statement{why: fmt.Sprintf("it is listed under %s, and hangs on %s", bundle, on)}, true
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

// Scores returns the scores of these bundles, by score key, and the statements
// among them that do not count. They stay in memory until the next call, which
// reads only what is new.
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
