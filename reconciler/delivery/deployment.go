package delivery

import "fmt"

// A Deployment is how far a release has come in a fleet, for the forge's page of deployments. Each fleet is an
// environment there.
type Deployment struct {
	Fleet  string
	Commit string // of main, with the release
	Model  string
	// Version and Bundle are the release's.
	Version int
	Bundle  Digest

	State       DeploymentState
	Description string // as 3 of 10 devices in wave 2
	URL         string // of the server's page; empty for none
}

// Release names the release, as shapes version 3.
func (d Deployment) Release() string { return fmt.Sprintf("%s version %d", d.Model, d.Version) }

// DeploymentState is the state of a deployment.
type DeploymentState string

// The states of a deployment.
const (
	DeploymentRunning DeploymentState = "running" // it waits, or its waves go on
	DeploymentDone    DeploymentState = "done"    // the fleet runs the release
	DeploymentFailed  DeploymentState = "failed"
)
