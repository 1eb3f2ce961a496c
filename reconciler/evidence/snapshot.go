package evidence

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Snapshot contains all evidence except scores at one moment. It is shared, so callers
// must not change it. Lists are in the order in which the statements were attached.
type Snapshot struct {
	// Trainings maps run keys to trainings. If a run was trained twice, for example after
	// the ledger was lost, it is the first one.
	Trainings map[delivery.Digest]*delivery.Training
	// TrainingsOf maps spec digests to all trainings of the spec.
	TrainingsOf map[delivery.Digest][]*delivery.Training
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
	// Releases has the release statements of ReleasesOf in one list.
	Releases []*delivery.ReleaseStatement
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
	// Version is another number for each snapshot of a store. See [Store.Added].
	Version int
}

// A Statement is one valid statement.
type Statement struct {
	Bundle delivery.Digest
	Type   string // predicate type
	Value  any    // points to the predicate, for example *delivery.Training
	after  int    // the version of the snapshot that has it first
}

// keptNews is how many statements [Store.Added] remembers.
const keptNews = 256

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
	snapshot, err := s.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return snapshot, nil
}

// Added returns the statements that a snapshot has and an earlier one has not, the oldest first. ok is false if it is
// not known, or if something else differs too: then all must be looked at.
func (s *Store) Added(before, now *Snapshot) (list []Statement, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before == nil || before.Version < s.newsFrom || now.Version < before.Version {
		return nil, false
	}
	for _, st := range s.news {
		if st.after > before.Version && st.after <= now.Version {
			list = append(list, st)
		}
	}
	return list, true
}

func (s *Store) load(ctx context.Context) (*Snapshot, error) {
	list, generation, length, err := s.bundles.Since(ctx, s.list.generation, s.list.length)
	if err != nil {
		return nil, err
	}
	newer, err := s.newerSigned(ctx)
	if err != nil {
		return nil, err
	}
	if s.snapshot != nil && generation != s.list.generation {
		list = s.list.follows(list) // usually the same list in a new file
	}
	if s.snapshot == nil || list == nil || !s.stillUnread(ctx) {
		return s.loadAll(ctx, newer)
	}
	attached := slices.Collect(list)
	if len(attached) == 0 && slices.Equal(newer, s.newer) {
		s.list.generation, s.list.length = generation, length
		return s.snapshot, nil
	}
	read := s.readBeside(ctx, attached, nil)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.list.generation, s.list.length = generation, length
	next, before := s.snapshot.grow(), len(s.news)
	skipped := len(next.Skipped)
	for i, a := range attached {
		s.take(next, a, read[i])
	}
	if len(s.news) == before && len(next.Skipped) == skipped && slices.Equal(newer, s.newer) {
		return s.snapshot, nil // scores and documents only
	}
	if len(next.Skipped) != skipped || !slices.Equal(newer, s.newer) {
		s.news, s.newsFrom = nil, next.Version
	}
	if drop := len(s.news) - keptNews; drop > 0 {
		s.newsFrom = s.news[drop-1].after
		s.news = slices.Clone(s.news[drop:])
	}
	next.Newer = newer
	s.newer, s.snapshot = newer, &next.Snapshot
	s.cache.flush(cacheLeast)
	return s.snapshot, nil
}

// follows returns what a list has after the referrers that were read; nil if it does not begin with them.
func (l *listed) follows(list iter.Seq[delivery.Attached]) iter.Seq[delivery.Attached] {
	n := 0
	for a := range list {
		if n == len(l.referrers) {
			break
		}
		if l.referrers[n] != raw(a.Referrer) {
			return nil
		}
		n++
	}
	if n < len(l.referrers) {
		return nil
	}
	return func(yield func(delivery.Attached) bool) {
		at := 0
		for a := range list {
			if at++; at > n && !yield(a) {
				return
			}
		}
	}
}

// loadAll reads everything, out of the cache where it can.
func (s *Store) loadAll(ctx context.Context, newer []delivery.NewerStatements) (*Snapshot, error) {
	list, generation, length, err := s.bundles.Since(ctx, 0, 0)
	if err != nil {
		return nil, err
	}
	version := s.newsFrom + 1
	if s.snapshot != nil {
		version = s.snapshot.Version + 1
	}
	if len(s.news) > 0 {
		version = max(version, s.news[len(s.news)-1].after+1)
	}
	s.snapshot, s.news, s.newsFrom, s.recheck = nil, nil, version, nil
	s.list = listed{generation: generation, length: length, payloads: map[[32]byte]struct{}{}}
	next := &growing{Snapshot: *newSnapshot(), fresh: true}
	next.Version = version
	known, err := s.cached(ctx)
	if err != nil {
		return nil, err
	}
	progress := s.progress("reading the signed statements", length)
	all := slices.Collect(list)
	for some := range slices.Chunk(all, cacheChunk) {
		read := s.readBeside(ctx, some, known)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i, a := range some {
			s.take(next, a, read[i])
			delete(known, raw(a.Referrer))
		}
		s.cache.flush(cacheChunk)
		progress(len(some))
	}
	s.cache.flush(cacheLast)
	for _, list := range next.AcceptancesOf {
		slices.SortStableFunc(list, byVersion)
	}
	next.Newer = newer
	s.news = nil
	s.newer, s.snapshot = newer, &next.Snapshot
	return s.snapshot, nil
}

func byVersion(a, b delivery.Acceptance) int { return cmp.Compare(a.Version, b.Version) }

// take adds what was read of one referrer to a snapshot.
func (s *Store) take(next *growing, a delivery.Attached, r reading) {
	s.list.referrers = append(s.list.referrers, raw(a.Referrer))
	if r.kind < 0 {
		return
	}
	skipped := Skipped{a.Bundle, a.Referrer, r.why}
	if !r.final {
		next.Unread = append(slices.Clip(next.Unread), Unread{skipped, snapshotKinds[r.kind].predicateType})
	}
	if r.why != "" {
		next.Skipped = append(slices.Clip(next.Skipped), skipped)
		return
	}
	if r.cached {
		s.recheck = append(s.recheck, a)
	} else {
		s.cache.add(r.record)
	}
	sum := raw(r.payload)
	if _, there := s.list.payloads[sum]; there { // two keys may have signed the same payload
		return
	}
	s.list.payloads[sum] = struct{}{}
	if !r.shared {
		s.shared.share(r.value)
	}
	next.add(r.value)
	s.news = append(s.news, Statement{Bundle: a.Bundle, Type: snapshotKinds[r.kind].predicateType, Value: r.value,
		after: next.Version})
	if next.fresh {
		s.news = s.news[:0]
	}
}

// A reading is a statement that was read, or why it was not.
type reading struct {
	statement
	kind                  int // index in snapshotKinds; -1 for one that is read when it is asked for
	final, cached, shared bool
}

// readBeside reads statements on all cores, except those that are known.
func (s *Store) readBeside(ctx context.Context, list []delivery.Attached, known map[[32]byte]statement) []reading {
	read := make([]reading, len(list))
	var todo []int
	for i, a := range list {
		st, ok := known[raw(a.Referrer)]
		kind := slices.IndexFunc(snapshotKinds, func(k kind) bool { return k.artifactType == a.Type })
		if ok && kind >= 0 && st.record.kind == a.Type && st.record.bundle == a.Bundle {
			read[i] = reading{statement: st, kind: kind, final: true, cached: true, shared: true}
			continue
		}
		todo = append(todo, i)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.NumCPU(), len(todo)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(todo) || ctx.Err() != nil {
					return
				}
				read[todo[i]] = s.readOne(ctx, list[todo[i]])
			}
		})
	}
	workers.Wait()
	return read
}

func (s *Store) readOne(ctx context.Context, a delivery.Attached) (r reading) {
	r.kind = slices.IndexFunc(snapshotKinds, func(k kind) bool { return k.artifactType == a.Type })
	if r.kind >= 0 && ctx.Err() == nil {
		r.statement, r.final = s.readStatement(ctx, snapshotKinds[r.kind], a.Bundle, a.Referrer)
	}
	return r
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
		Trainings:     map[delivery.Digest]*delivery.Training{},
		TrainingsOf:   map[delivery.Digest][]*delivery.Training{},
		Resolved:      map[delivery.Digest]delivery.Resolved{},
		VariantsOf:    map[delivery.Digest][]delivery.MadeVariant{},
		BenchesOf:     map[delivery.Digest][]delivery.Bench{},
		Verdicts:      map[delivery.Digest]delivery.Verdict{},
		ReleasesOf:    map[delivery.Digest][]delivery.ReleaseStatement{},
		AcceptancesOf: map[string][]delivery.Acceptance{},
		AbortsOf:      map[string][]delivery.Abort{},
	}
}

// A growing is a snapshot that is being made from another one. It copies what it changes, once. If it is fresh, there
// is no other one.
type growing struct {
	Snapshot
	fresh  bool
	copied [9]bool
}

func (s *Snapshot) grow() *growing {
	g := &growing{Snapshot: *s}
	g.Version++
	return g
}

// own returns the map that may be changed.
func own[M ~map[K]V, K comparable, V any](g *growing, i int, m *M) M {
	if !g.fresh && !g.copied[i] {
		*m, g.copied[i] = maps.Clone(*m), true
	}
	return *m
}

// with adds to one of the lists of a map, and leaves the list of the snapshot before as it is.
func with[K comparable, V any](g *growing, m map[K][]V, key K, v V) {
	if g.fresh {
		m[key] = append(m[key], v)
	} else {
		m[key] = append(slices.Clip(m[key]), v)
	}
}

func (g *growing) add(value any) {
	switch v := value.(type) {
	case *delivery.Training:
		if runs := own(g, 0, &g.Trainings); runs[v.Run] == nil {
			runs[v.Run] = v
		}
		with(g, own(g, 1, &g.TrainingsOf), v.Spec, v)
	case *delivery.Resolved:
		if m := own(g, 2, &g.Resolved); !has(m, v.Key) {
			m[v.Key] = *v
		}
	case *delivery.MadeVariant:
		with(g, own(g, 3, &g.VariantsOf), v.Input.Bundle, *v)
	case *delivery.Bench:
		with(g, own(g, 4, &g.BenchesOf), v.Bundle, *v)
	case *delivery.Verdict:
		if m := own(g, 5, &g.Verdicts); !has(m, v.Key) {
			m[v.Key] = *v
		}
	case *delivery.ReleaseStatement:
		with(g, own(g, 6, &g.ReleasesOf), v.Bundle, *v)
		g.Releases = append(g.Releases, v) // only the newest snapshot grows, so that all share the memory
	case *delivery.Acceptance:
		m := own(g, 7, &g.AcceptancesOf)
		with(g, m, v.Model, *v)
		if !g.fresh {
			slices.SortStableFunc(m[v.Model], byVersion)
		}
	case *delivery.Abort:
		with(g, own(g, 8, &g.AbortsOf), v.Fleet, *v)
	default:
		panic(fmt.Sprintf("evidence: a snapshot has no place for %T", v))
	}
}

func has[K comparable, V any](m map[K]V, key K) bool {
	_, ok := m[key]
	return ok
}
