package evidence

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Snapshot contains all evidence except scores at one moment. It is shared, so callers
// must not change it. Lists are in the order in which the statements were attached.
type Snapshot struct {
	// Trainings maps run keys to trainings. If a run was trained twice, for example after
	// the ledger was lost, it is the first one.
	Trainings map[delivery.Digest]delivery.Training
	// TrainingsOf maps spec digests to all trainings of the spec.
	TrainingsOf map[delivery.Digest][]delivery.Training
	// Resolved maps keys of thresholds runs to their results.
	Resolved map[delivery.Digest]delivery.Resolved
	// VariantsOf maps trained bundles to their variants. Of several of one kind the first counts.
	VariantsOf map[delivery.Digest][]delivery.MadeVariant
	// BenchesOf maps bundles to what machines measured of them.
	BenchesOf map[delivery.Digest][]delivery.Bench
	// Verdicts maps verdict keys to verdicts.
	Verdicts map[delivery.Digest]delivery.Verdict
	// ReleasesOf maps bundles to release statements.
	ReleasesOf map[delivery.Digest][]delivery.ReleaseStatement
	// AcceptancesOf maps models to acceptances, lowest version first.
	AcceptancesOf map[string][]delivery.Acceptance
	// AbortsOf maps fleets to aborts.
	AbortsOf map[string][]delivery.Abort
	// Skipped lists the statements that are not valid, and why.
	Skipped []Skipped
	// Unread lists those skipped statements that could not be read. Their content is unknown.
	Unread []Unread
	// Newer counts the statements in formats of newer versions, which this version cannot read.
	Newer []delivery.NewerStatements
}

// An Unread is a statement whose bytes are missing or damaged.
type Unread struct {
	Skipped
	Type string // predicate type, for example delivery.AbortType
}

// Load returns the present evidence. It reads only statements that it has not read before.
// If nothing has changed, it returns the same pointer as the last call.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed, changed, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	newer, err := s.newerSigned(ctx)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	if s.snapshot != nil && !changed && slices.Equal(newer, s.newer) && s.stillUnread(ctx) {
		return s.snapshot, nil
	}
	read := make(map[delivery.Digest]statement, len(listed))
	snapshot := newSnapshot()
	added := map[delivery.Digest]bool{} // by payload
	for _, ref := range listed {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, final := s.read[ref.referrer]
		if !final {
			st, final = s.readStatement(ctx, snapshotKinds[ref.kind], ref.bundle, ref.referrer)
		}
		if final {
			read[ref.referrer] = st
		}
		if !final {
			snapshot.Unread = append(snapshot.Unread, Unread{Skipped{ref.bundle, ref.referrer, st.why},
				snapshotKinds[ref.kind].predicateType})
		}
		switch {
		case st.why != "":
			snapshot.Skipped = append(snapshot.Skipped, Skipped{ref.bundle, ref.referrer, st.why})
		case !added[st.payload]: // two keys may have signed the same payload
			added[st.payload] = true
			snapshot.add(st.value)
		}
	}
	for _, list := range snapshot.AcceptancesOf {
		slices.SortStableFunc(list, func(a, b delivery.Acceptance) int { return cmp.Compare(a.Version, b.Version) })
	}
	snapshot.Newer = newer
	s.read, s.listed, s.newer, s.snapshot = read, listed, newer, snapshot
	return snapshot, nil
}

// stillUnread tries to read the unread statements again, and reports whether all fail with the same error as before.
func (s *Store) stillUnread(ctx context.Context) bool {
	for _, u := range s.snapshot.Unread {
		k, _ := kindOf(u.Type)
		if st, final := s.readStatement(ctx, k, u.Bundle, u.Referrer); final || st.why != u.Why {
			return false
		}
	}
	return true
}

// list returns the present referrers, and whether they differ from those of the last snapshot.
func (s *Store) list(ctx context.Context) (listed []reference, changed bool, err error) {
	listed = make([]reference, 0, len(s.listed))
	for i, k := range snapshotKinds {
		list, err := s.bundles.Referrers(ctx, k.artifactType)
		if err != nil {
			return nil, false, err
		}
		for bundle, referrer := range list {
			listed = append(listed, reference{bundle, referrer, i})
		}
	}
	return listed, s.listed == nil || !slices.Equal(listed, s.listed), nil
}

// newerSigned counts the statements of newer formats and of unknown kinds. Each kind and format has its own artifact
// type.
func (s *Store) newerSigned(ctx context.Context) ([]delivery.NewerStatements, error) {
	types, err := s.bundles.ArtifactTypes(ctx)
	if err != nil {
		return nil, err
	}
	var list []delivery.NewerStatements
	for _, t := range types {
		name, format, ok := delivery.FormatOf(t)
		if !ok || slices.ContainsFunc(allKinds, func(k kind) bool { return k.artifactType == t }) {
			continue
		}
		u := delivery.NewerStatements{Kind: name, Format: format}
		for _, k := range allKinds {
			if known, at, _ := delivery.FormatOf(k.artifactType); known == name {
				u.Known = max(u.Known, at)
			}
		}
		referrers, err := s.bundles.Referrers(ctx, t)
		if err != nil {
			return nil, err
		}
		for range referrers {
			u.Count++
		}
		if u.Count > 0 && u.Format > u.Known {
			list = append(list, u)
		}
	}
	return list, nil
}

func newSnapshot() *Snapshot {
	return &Snapshot{
		Trainings:     map[delivery.Digest]delivery.Training{},
		TrainingsOf:   map[delivery.Digest][]delivery.Training{},
		Resolved:      map[delivery.Digest]delivery.Resolved{},
		VariantsOf:    map[delivery.Digest][]delivery.MadeVariant{},
		BenchesOf:     map[delivery.Digest][]delivery.Bench{},
		Verdicts:      map[delivery.Digest]delivery.Verdict{},
		ReleasesOf:    map[delivery.Digest][]delivery.ReleaseStatement{},
		AcceptancesOf: map[string][]delivery.Acceptance{},
		AbortsOf:      map[string][]delivery.Abort{},
	}
}

func (s *Snapshot) add(value any) {
	switch v := value.(type) {
	case delivery.Training:
		if _, there := s.Trainings[v.Run]; !there {
			s.Trainings[v.Run] = v
		}
		s.TrainingsOf[v.Spec] = append(s.TrainingsOf[v.Spec], v)
	case delivery.Resolved:
		if _, there := s.Resolved[v.Key]; !there {
			s.Resolved[v.Key] = v
		}
	case delivery.MadeVariant:
		s.VariantsOf[v.Input.Bundle] = append(s.VariantsOf[v.Input.Bundle], v)
	case delivery.Bench:
		s.BenchesOf[v.Bundle] = append(s.BenchesOf[v.Bundle], v)
	case delivery.Verdict:
		if _, there := s.Verdicts[v.Key]; !there {
			s.Verdicts[v.Key] = v
		}
	case delivery.ReleaseStatement:
		s.ReleasesOf[v.Bundle] = append(s.ReleasesOf[v.Bundle], v)
	case delivery.Acceptance:
		s.AcceptancesOf[v.Model] = append(s.AcceptancesOf[v.Model], v)
	case delivery.Abort:
		s.AbortsOf[v.Fleet] = append(s.AbortsOf[v.Fleet], v)
	default:
		panic(fmt.Sprintf("evidence: a snapshot has no place for %T", v))
	}
}
