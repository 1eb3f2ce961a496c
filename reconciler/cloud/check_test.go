package cloud

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/autonomos/aob/tools/moto/front"
)

// A role that may do nothing is told each permission that it lacks, one a line.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/ec2/") {
			front.Refuse(w, http.StatusForbidden, "UnauthorizedOperation",
				"You are not authorized to perform this operation.")
			return
		}
		w.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	a, err := OpenAccount(t.Context(), AccountAddress{Regions: []string{"eu-central-1"}, Endpoint: server.URL,
		KeyID: "id", Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range a.Check(t.Context(), "aob") {
		if c.Err != nil {
			said = append(said, c.Err.Error())
		}
	}
	for _, want := range []string{"ec2:DescribeInstances is not permitted", "ec2:DescribeVolumes is not permitted",
		"ec2:DescribeSpotInstanceRequests is not permitted", "scheduler:ListScheduleGroups is not permitted",
		"pricing:GetProducts"} {
		found := 0
		for _, line := range said {
			if strings.Contains(line, want) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d lines say %q:\n%s", found, want, strings.Join(said, "\n"))
		}
	}
}
