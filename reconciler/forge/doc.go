// Package forge speaks to where pull requests live.
//
// [Gitea] speaks to a Gitea or Forgejo server, [Local] to a bare git folder of
// this machine, where every branch but main is a proposal. Both have the same
// methods:
//
//	PullRequests(ctx)                       the open ones, sorted by number
//	SetStatus(ctx, commit, check)           one status check on a commit
//	Comment(ctx, pr, marker, body)          the one comment, edited in place
//	Commands(ctx, pr)                       what people asked of AOB in comments
//	Permission(ctx, user)                   what a user may do, by the forge's own word
//	Teams(ctx, user)                        the teams of the repository, and whether a user is in each
//	OpenPR(ctx, head, base, title, body)    a pull request for a branch, made once
//
// Each write may be repeated: the same call leaves the forge as it is. What was
// said before is not read back from the forge, but remembered by the caller;
// only a comment, an open pull request and nothing else is looked up.
//
// Errors are [delivery.Wait] where the forge asks for time (429, 5xx),
// [delivery.Blocked] where a person must act (401, 403, 404), and plain where
// it cannot be reached. No error holds the token.
//
// [Webhook] checks a webhook's signature. A webhook only wakes the loop:
// nothing that it says is believed.
package forge
