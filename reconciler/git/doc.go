// Package git reads and writes the intent repository.
//
// A [Mirror] is a bare copy of the repository in a folder of AOB's own. It is a
// cache: nothing in it is lost with it, and a folder that is damaged is thrown
// away and cloned again. There is never a worktree, so nothing that a pull
// request brings is ever written to the disk under its own name.
//
//	m, err := git.Open(dir, git.Remote{URL: url, Auth: auth})
//	refs, changed, err := m.Observe(ctx)              // one question to the remote
//	files, err := m.Files(refs["refs/heads/main"])    // what changed is read, the rest is remembered
//	text, err := m.Blob(files[0].Hash, git.MaxBlob)
//
// An unchanged remote costs one request on a connection that stays open. A
// change costs one more, and a walk of the folders whose hashes differ.
//
// What comes from the repository is hostile: objects, folders and their number
// are bounded before they are read, and an object that is too large is left on
// the remote where the remote can leave it there.
//
// Writing never touches a worktree either: [Mirror.Commit] makes objects, equal
// for equal input, and [Mirror.Push] moves a branch by compare-and-swap.
//
// All methods of a Mirror may be called from any goroutine; reading goes on
// while Observe fetches. One process at a time may have a folder open.
//
// Errors are [delivery.Blocked] where a person must act (no such repository,
// access denied, a protected branch), [delivery.Wait] where the remote asks for
// time or does not have a commit yet, and plain otherwise. No error, log or
// file holds the token.
package git
