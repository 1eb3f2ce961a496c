package post

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
)

// statusKey and commentKey are the ledger's keys of posts. They contain the forge, and when a pull request was created:
// another forge, or one that was restored from a backup, uses the same numbers again.
func (b *Board) statusKey(commit, context string) string {
	return fmt.Sprintf(statusKeys+"%s/%s/%s", b.address(), commit, context)
}

// The prefixes of keys: of statuses, of comments, and of statuses that somebody else has set.
const (
	statusKeys  = "status/"
	commentKeys = "comment/"
	forgedKeys  = "forged/"
	deployKeys  = "deploy/" // of deployments, by the commit and the fleet
	// Package forge keeps what the buttons on a commit order, and who has pressed them.
	buttonKeys = "button/"
	pressKeys  = "press/"
)

func (b *Board) commentKey(pr delivery.PullRequest) string {
	key := fmt.Sprintf(commentKeys+"%s/%d", b.address(), pr.Number)
	if !pr.Created.IsZero() {
		key += fmt.Sprintf("-%d", pr.Created.Unix())
	}
	return key
}

func (b *Board) forgedKey(commit, context string) string {
	return fmt.Sprintf(forgedKeys+"%s/%s/%s", b.address(), commit, context)
}

// Prefixes are the prefixes of the ledger's keys of posts.
var Prefixes = []string{statusKeys, commentKeys, forgedKeys, headKeys, deployKeys, buttonKeys, pressKeys}

// About returns the commit or the pull request that a key of the ledger is about; "" and 0 if it is another key.
func About(key string) (commit string, pull int) {
	for _, prefix := range []string{commentKeys, headKeys} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			_, number, _ := strings.Cut(rest, "/")
			number, _, _ = strings.Cut(number, "-")
			pull, _ = strconv.Atoi(number)
			return "", pull
		}
	}
	for _, prefix := range []string{statusKeys, forgedKeys, deployKeys, buttonKeys, pressKeys} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			_, rest, _ = strings.Cut(rest, "/")
			commit, _, _ = strings.Cut(rest, "/")
			return commit, 0
		}
	}
	return "", 0
}

// Forget drops what the board remembers about commits and pull requests that keep does not want. It is read from the
// ledger again when it is needed.
func (b *Board) Forget(keep func(commit string, pull int) bool) {
	busy := func(key string) bool {
		_, fails := b.retry[key]
		_, disputed := b.disputes[key]
		return fails || disputed || b.posts.Has(key)
	}
	for of, keys := range b.byCommit {
		if commit, _ := About(of); commit == "" || keep(commit, 0) || slices.ContainsFunc(keys, busy) {
			continue
		}
		for _, key := range keys {
			delete(b.records, key)
		}
		delete(b.byCommit, of)
	}
	for key := range b.records {
		if _, pull := About(key); pull != 0 && !keep("", pull) && !busy(key) {
			delete(b.records, key)
		}
	}
	maps.DeleteFunc(b.loaded, func(prefix string, _ bool) bool {
		if _, pull := About(prefix); pull != 0 {
			_, there := b.records[prefix]
			return !there
		}
		of, ok := ofCommit(prefix)
		return ok && len(b.byCommit[of]) == 0
	})
}

// ofCommit returns the part of a key that all contexts of a commit have: what is before "aob/".
func ofCommit(key string) (prefix string, ok bool) {
	i := strings.Index(key, "/"+contextPrefix)
	return key[:i+1], i >= 0
}

// prefixOf returns what the keys begin with that are read from the ledger together: all of a commit, or the one of a
// pull request.
func prefixOf(key string) string {
	if strings.HasPrefix(key, commentKeys) || strings.HasPrefix(key, headKeys) {
		return key
	}
	return key[:strings.LastIndexByte(key, '/')+1]
}

// address returns a short name of the forge. It is cached, because each key contains it.
func (b *Board) address() string {
	if now := b.API.Address(); b.addressOf != now || b.short == "" {
		b.addressOf, b.short = now, ledger.OfForge(now)
	}
	return b.short
}
