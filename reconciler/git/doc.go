// Package git reads and writes the intent repository.
//
// A [Mirror] is a bare clone of the repository in a folder of AOB. It is a cache: it can be deleted, and a damaged
// mirror is cloned again. There is no worktree, so file names of pull requests are never used on the disk.
//
//	m, err := git.Open(dir, git.Remote{URL: url, Auth: auth})
//	refs, changed, err := m.Observe(ctx)              // ls-remote, and fetch if needed
//	files, err := m.Files(refs["refs/heads/main"])    // reads only trees that have changed
//	text, err := m.Blob(files[0].Hash, git.MaxBlob)
//
// If the remote has not changed, Observe costs one request on a kept connection. A change
// costs one more request, and reading the trees whose hashes differ.
//
// The repository is untrusted: the size and number of objects and trees are limited before
// they are read. Blobs larger than MaxBlob are not fetched if the remote supports filters.
//
// Writing needs no worktree either: [Mirror.Commit] creates objects, the same ones for the
// same input, and [Mirror.Push] updates a branch with compare-and-swap.
//
// All methods of a Mirror may be called from any goroutine. Reading does not wait for a
// fetch. Only one process at a time can open a mirror.
//
// Errors are [delivery.Blocked] if a person must act (no such repository, access denied, a
// protected branch), [delivery.Wait] if the remote is overloaded or does not have a commit
// yet, and plain errors otherwise. No error, log or file contains the token.
package git
