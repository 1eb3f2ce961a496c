package evidence

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Snapshot is all the evidence but scores, as it stood at one moment. It is
// shared: read it, do not change it. Where several statements answer, they come
// in the order in which they were attached.
type Snapshot struct {
	// Trainings by run key. Where a key was trained twice, as after the ledger was
	// lost, the first counts.
	Trainings map[delivery.Digest]delivery.Training
	// TrainingsOf holds all trainings resolved for a spec, by spec digest.
	TrainingsOf map[delivery.Digest][]delivery.Training
	// Resolved holds what thresholds runs found, by their key.
	Resolved map[delivery.Digest]delivery.Resolved
	// Verdicts by verdict key.
	Verdicts map[delivery.Digest]delivery.Verdict
	// ReleasesOf holds release statements by bundle.
	ReleasesOf map[delivery.Digest][]delivery.ReleaseStatement
	// AcceptancesOf holds acceptances by model, lowest version first.
	AcceptancesOf map[string][]delivery.Acceptance
	// AbortsOf holds aborts by fleet.
	AbortsOf map[string][]delivery.Abort
	// Skipped are the statements that do not count, and why.
	Skipped []Skipped
	// Unread are those of them that cannot be read now: nobody knows what they say.
	Unread []Unread
	// Newer counts the statements that a newer aob signed in a form that this one does not read.
	Newer []delivery.NewerStatements
}

// An Unread is a statement whose bytes are gone or damaged.
type Unread struct {
	Skipped
	Type string // what it says: a predicate type, as delivery.AbortType
}

// Releases returns the release statements for a spec and a bundle.
func (s *Snapshot) Releases(spec, bundle delivery.Digest) []delivery.ReleaseStatement {
	var found []delivery.ReleaseStatement
	for _, r := range s.ReleasesOf[bundle] {
		if r.Spec == spec {
			found = append(found, r)
		}
	}
	return found
}

// Accepted returns the acceptances of a model's bundle, lowest version first.
func (s *Snapshot) Accepted(model string, bundle delivery.Digest) []delivery.Acceptance {
	var found []delivery.Acceptance
	for _, a := range s.AcceptancesOf[model] {
		if a.Bundle == bundle {
			found = append(found, a)
		}
	}
	return found
}

// Aborts returns the aborts of a bundle on a fleet.
func (s *Snapshot) Aborts(fleet string, bundle delivery.Digest) []delivery.Abort {
	var found []delivery.Abort
	for _, a := range s.AbortsOf[fleet] {
		if a.Bundle == bundle {
			found = append(found, a)
		}
	}
	return found
}

// Load returns the evidence as it stands now. Only statements that were not read
// before are read; while nothing is attached, the same snapshot comes back.
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
	said := map[delivery.Digest]bool{}
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
		case !said[st.payload]: // else the same, signed by two keys
			said[st.payload] = true
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

// stillUnread tries the statements that could not be read, and reports whether all of them are as they were.
func (s *Store) stillUnread(ctx context.Context) bool {
	for _, u := range s.snapshot.Unread {
		k, _ := kindOf(u.Type)
		if st, final := s.readStatement(ctx, k, u.Bundle, u.Referrer); final || st.why != u.Why {
			return false
		}
	}
	return true
}

// list returns the referrers that there are now, and whether they are others
// than those that the last snapshot was made of.
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

// newerSigned counts the statements of newer formats and of kinds that are not known. They are told by their artifact
// types: a statement of another form hangs under another type.
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
