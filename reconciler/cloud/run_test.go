package cloud

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Terraform gets no credentials of a role that expire while it applies, unless there are no others.
func TestVariablesLast(t *testing.T) {
	for _, c := range []struct {
		name string
		last []time.Duration // of the credentials, one after the other
		want string
	}{
		{"an hour", []time.Duration{time.Hour}, "key 1"},
		{"a minute, then an hour", []time.Duration{time.Minute, time.Hour}, "key 2"},
		{"never more than a minute", []time.Duration{time.Minute, time.Minute}, "key 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := 0
			a := &Account{config: aws.Config{Credentials: aws.NewCredentialsCache(aws.CredentialsProviderFunc(
				func(context.Context) (aws.Credentials, error) {
					given++
					return aws.Credentials{AccessKeyID: fmt.Sprintf("key %d", given), SecretAccessKey: "secret",
						SessionToken: "token", CanExpire: true, Expires: time.Now().Add(c.last[given-1])}, nil
				}))}}
			list, err := a.Variables(t.Context())
			if err != nil || list["AWS_ACCESS_KEY_ID"] != c.want || list["AWS_SESSION_TOKEN"] != "token" {
				t.Errorf("%v, %v; want %s", list, err, c.want)
			}
		})
	}
}
