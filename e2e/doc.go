// Package e2e tests the whole product from outside: the commands as a user builds them, each a process of its own, with
// a real forge, a real Terraform, a real trainer and real data. A test here starts what a team would have, does what
// its people would do with git and the forge's API, and looks only at what they could see: statuses, comments, commits,
// metrics, and what devices serve.
//
// What a test needs and does not find makes it skip and say what is missing. A test takes minutes; -short leaves out
// the story on Gitea and kills less often. The logs of all processes are kept with
//
//		go test ./e2e -v -artifacts -outputdir DIR
//
//	  - needs_test.go: what is needed, found or built.
//	  - process_test.go: processes, waiting, and what is left of them.
//	  - team_test.go, pull_test.go: a team with a Gitea, a server and three devices.
//	  - gitea_test.go: their story.
//	  - workshop_test.go: the local forge, a server and three devices in one folder.
//	  - killer_test.go: who is killed there, and when.
//	  - kill_test.go: a promotion that comes out all the same.
//	  - ec2_test.go, paid_test.go, ec2_kill_test.go: an account that is moto, and what may start and must end there.
//	  - security_test.go, security_*_test.go: a walk of every cell of docs/security.md.
//	  - readme_test.go: every command of the README.
package e2e
