package cloud

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	schedulertypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
)

// A role that may do nothing is told each list that it lacks, one a line.
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
	said := problems(a.Check(t.Context(), "aob", nil))
	for _, want := range []string{"ec2:DescribeInstances is not permitted", "ec2:DescribeVolumes is not permitted",
		"ec2:DescribeSpotInstanceRequests is not permitted", "scheduler:ListScheduleGroups is not permitted",
		"pricing:GetProducts is not permitted"} {
		if strings.Count(said, want) != 1 {
			t.Errorf("%d lines say %q:\n%s", strings.Count(said, want), want, said)
		}
	}
}

// problems are the lines of what is wrong.
func problems(list []Checked) string {
	var said strings.Builder
	for _, c := range list {
		if c.Err != nil {
			fmt.Fprintf(&said, "%s: %s\n", c.Name, c.Err)
		}
	}
	return said.String()
}

// A prepared account has all that docs/aws.md asks for, and credentials of the role that the module github-oidc makes.
type prepared struct {
	*motoAccount
	front *front.Front
	place Place
}

const (
	doctorRegion  = "eu-west-1"
	doctorName    = "aob.example" // as in the module's policy
	doctorAccount = "123456789012"
)

// policyOf returns the policy that the module github-oidc makes for this package's test of the module, in doctorRegion.
func policyOf(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "terraform", "testdata", "policies", "controller.json"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "eu-central-1", doctorRegion)
}

func prepare(t *testing.T) prepared {
	t.Helper()
	moto := mototest.Start(t)
	f := &front.Front{Policy: policyOf(t), Quotas: map[string]float64{"L-DB2E81BA": 8, "L-3819A6DF": 64},
		Prices: map[string][]float64{doctorRegion + " g5.xlarge": {1.123, 0.5}}}
	address := f.Start(t, moto.URL)
	m := newMotoAccount(t, moto.URL)
	p := prepared{m, f, Place{Account: doctorAccount, AMIOwner: "amazon", AMIName: "amzn2-ami-hvm-2.0.*",
		Instances: []string{"g5.xlarge"}, Runs: "acme-aob-runs", States: "acme-aob-states", ScheduleGroup: "aob-runs",
		Boundary: "arn:aws:iam::" + doctorAccount + ":policy/aob/aob-aob.example-boundary"}}
	p.network()
	for _, bucket := range []string{p.place.Runs, p.place.States} {
		p.makeBucket(bucket)
	}
	_, err := p.scheduler(doctorRegion).CreateScheduleGroup(t.Context(), &scheduler.CreateScheduleGroupInput{
		Name: aws.String("aob-runs"), Tags: []schedulertypes.Tag{{Key: aws.String(TagController),
			Value: aws.String(doctorName)}}})
	if err != nil {
		t.Fatal(err)
	}
	p.assume()
	if p.Account, err = OpenAccount(t.Context(), AccountAddress{Regions: []string{doctorRegion, "us-east-1"},
		Endpoint: address}); err != nil {
		t.Fatal(err)
	}
	return p
}

// network makes a subnet with a way to S3.
func (p *prepared) network() {
	p.Helper()
	client := p.ec2(doctorRegion)
	subnets, err := client.DescribeSubnets(p.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		p.Fatal(err)
	}
	p.place.Subnet, p.place.VPC = *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	nat, err := client.CreateNatGateway(p.Context(), &ec2.CreateNatGatewayInput{SubnetId: &p.place.Subnet,
		ConnectivityType: ec2types.ConnectivityTypePrivate})
	if err != nil {
		p.Fatal(err)
	}
	p.table(&ec2.CreateRouteInput{NatGatewayId: nat.NatGateway.NatGatewayId})
}

// table gives the subnet a table of its own with one route to everywhere; nil for none.
func (p *prepared) table(route *ec2.CreateRouteInput) {
	p.Helper()
	client := p.ec2(doctorRegion)
	old, err := client.DescribeRouteTables(p.Context(), &ec2.DescribeRouteTablesInput{Filters: []ec2types.Filter{
		{Name: aws.String("association.subnet-id"), Values: []string{p.place.Subnet}}}})
	if err != nil {
		p.Fatal(err)
	}
	for _, t := range old.RouteTables {
		for _, a := range t.Associations {
			if _, err := client.DisassociateRouteTable(p.Context(), &ec2.DisassociateRouteTableInput{
				AssociationId: a.RouteTableAssociationId}); err != nil {
				p.Fatal(err)
			}
		}
	}
	table, err := client.CreateRouteTable(p.Context(), &ec2.CreateRouteTableInput{VpcId: &p.place.VPC})
	if err != nil {
		p.Fatal(err)
	}
	id := table.RouteTable.RouteTableId
	if _, err := client.AssociateRouteTable(p.Context(), &ec2.AssociateRouteTableInput{RouteTableId: id,
		SubnetId: &p.place.Subnet}); err != nil {
		p.Fatal(err)
	}
	if route == nil {
		return
	}
	route.RouteTableId, route.DestinationCidrBlock = id, aws.String("0.0.0.0/0")
	if _, err := client.CreateRoute(p.Context(), route); err != nil {
		p.Fatal(err)
	}
}

func (p *prepared) s3() *s3.Client {
	return s3.NewFromConfig(p.config, func(o *s3.Options) { o.Region, o.UsePathStyle = doctorRegion, true })
}

// makeBucket makes a bucket as the module artifacts does.
func (p *prepared) makeBucket(bucket string) {
	p.Helper()
	client, ctx := p.s3(), p.Context()
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket,
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: doctorRegion}})
	if err != nil {
		p.Fatal(err)
	}
	p.block(bucket, true)
	p.versions(bucket, s3types.BucketVersioningStatusEnabled)
	_, err = client.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &bucket,
		ServerSideEncryptionConfiguration: &s3types.ServerSideEncryptionConfiguration{
			Rules: []s3types.ServerSideEncryptionRule{{ApplyServerSideEncryptionByDefault: &s3types.
				ServerSideEncryptionByDefault{SSEAlgorithm: s3types.ServerSideEncryptionAes256}}}}})
	if err != nil {
		p.Fatal(err)
	}
}

func (p *prepared) block(bucket string, policies bool) {
	p.Helper()
	yes := aws.Bool(true)
	_, err := p.s3().PutPublicAccessBlock(p.Context(), &s3.PutPublicAccessBlockInput{Bucket: &bucket,
		PublicAccessBlockConfiguration: &s3types.PublicAccessBlockConfiguration{BlockPublicAcls: yes,
			BlockPublicPolicy: aws.Bool(policies), IgnorePublicAcls: yes, RestrictPublicBuckets: yes}})
	if err != nil {
		p.Fatal(err)
	}
}

func (p *prepared) versions(bucket string, status s3types.BucketVersioningStatus) {
	p.Helper()
	_, err := p.s3().PutBucketVersioning(p.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket,
		VersioningConfiguration: &s3types.VersioningConfiguration{Status: status}})
	if err != nil {
		p.Fatal(err)
	}
}

// assume takes the role of the server, as the SDK finds its credentials.
func (p *prepared) assume() {
	p.Helper()
	role, err := iam.NewFromConfig(p.config).CreateRole(p.Context(), &iam.CreateRoleInput{Path: aws.String("/aob/"),
		RoleName: aws.String("aob-" + doctorName), AssumeRolePolicyDocument: aws.String("{}")})
	if err != nil {
		p.Fatal(err)
	}
	taken, err := sts.NewFromConfig(p.config).AssumeRole(p.Context(), &sts.AssumeRoleInput{RoleArn: role.Role.Arn,
		RoleSessionName: aws.String("serve")})
	if err != nil {
		p.Fatal(err)
	}
	for name, value := range map[string]*string{"AWS_ACCESS_KEY_ID": taken.Credentials.AccessKeyId,
		"AWS_SECRET_ACCESS_KEY": taken.Credentials.SecretAccessKey,
		"AWS_SESSION_TOKEN":     taken.Credentials.SessionToken} {
		p.Setenv(name, *value)
	}
}

// An account as docs/aws.md makes it lacks nothing, and each thing that is taken away is named.
func TestCheckOfAnAccount(t *testing.T) {
	p := prepare(t)
	list := p.Check(t.Context(), doctorName, &p.place)
	if said := problems(list); said != "" {
		t.Fatalf("of an account that lacks nothing:\n%s", said)
	}
	var said strings.Builder
	for _, c := range list {
		fmt.Fprintf(&said, "%s: %s\n", c.Name, c.What)
	}
	for _, want := range []string{"arn:aws:sts::123456789012:assumed-role/aob-aob.example/serve",
		"account: " + doctorAccount, "actions, all allowed", "route: " + p.place.Subnet + " reaches S3",
		"bucket acme-aob-runs: it blocks public",
		"bucket acme-aob-states: it keeps old versions", "instances boot ami-", "8 processors of such instances on " +
			"demand; g5.xlarge has 4", "g5.xlarge costs $1.12 an hour in eu-west-1, $0.50 as a spot instance",
		"they are in the group aob-runs"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no line says %q:\n%s", want, said.String())
		}
	}
	for _, c := range []struct {
		name   string
		change func(*prepared)
		want   string // the one problem
	}{
		{"another account", func(p *prepared) { p.place.Account = "999999999999" },
			"account: the credentials are those of account 123456789012, and aws.train.account is 999999999999"},
		{"no such subnet", func(p *prepared) { p.place.Subnet = "subnet-0123456789abcdef0" },
			"subnet: there is no subnet-0123456789abcdef0 in eu-west-1"},
		{"another VPC", func(p *prepared) { p.place.VPC = "vpc-01234567" }, "and aws.train.vpc is vpc-01234567"},
		{"no such bucket", func(p *prepared) {
			p.place.States = "acme-none"
			p.front.Policy = strings.ReplaceAll(p.front.Policy, "acme-aob-states", "acme-none")
		}, "bucket acme-none: there is no bucket"},
		{"no such image", func(p *prepared) { p.place.AMIName = "none-*" },
			`image: eu-west-1 has no image "none-*" of amazon`},
		{"no such image by its id", func(p *prepared) { p.place.AMI = "ami-0123456789abcdef0" },
			"image: eu-west-1 has no image ami-0123456789abcdef0"},
		{"a quota of none", func(p *prepared) {
			p.front.Quotas = map[string]float64{"L-DB2E81BA": 0, "L-3819A6DF": 64}
		}, "quota: the account may have 0 processors of such instances on demand, and g5.xlarge has 4; aws " +
			"service-quotas"},
		{"a group without a tag", func(p *prepared) {
			if _, err := p.scheduler(doctorRegion).CreateScheduleGroup(t.Context(),
				&scheduler.CreateScheduleGroupInput{Name: aws.String("aob-other")}); err != nil {
				t.Fatal(err)
			}
			p.place.ScheduleGroup = "aob-other"
		}, "schedules: the group aob-other has no tag aob:controller"},
		{"no such group", func(p *prepared) { p.place.ScheduleGroup = "aob-none" },
			"schedules: there is no group aob-none in eu-west-1; aws scheduler create-schedule-group"},
		{"no price", func(p *prepared) { p.front.Prices = map[string][]float64{} },
			"price: the price of g5.xlarge in eu-west-1 is that of AOB's table"},
		{"a bucket that the public may read", func(p *prepared) { p.block("acme-aob-runs", false) },
			"bucket acme-aob-runs: it does not block all public access; apply infra/terraform/artifacts"},
		{"a bucket without versions", func(p *prepared) {
			p.block("acme-aob-runs", true)
			p.versions("acme-aob-states", s3types.BucketVersioningStatusSuspended)
		}, "bucket acme-aob-states: it keeps no old versions"},
		{"a subnet without a way out", func(p *prepared) {
			p.versions("acme-aob-states", s3types.BucketVersioningStatusEnabled)
			p.table(nil)
		}, "has no way to S3; add an endpoint for S3"},
		{"a subnet with a way out for public addresses", func(p *prepared) {
			gateway, err := p.ec2(doctorRegion).CreateInternetGateway(t.Context(), &ec2.CreateInternetGatewayInput{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.ec2(doctorRegion).AttachInternetGateway(t.Context(), &ec2.AttachInternetGatewayInput{
				InternetGatewayId: gateway.InternetGateway.InternetGatewayId, VpcId: &p.place.VPC}); err != nil {
				t.Fatal(err)
			}
			p.table(&ec2.CreateRouteInput{GatewayId: gateway.InternetGateway.InternetGatewayId})
		}, "need a public address to reach S3, and get none; set aws.train.publicAddress: true"},
	} {
		changed := p
		c.change(&changed)
		said := problems(changed.Check(t.Context(), doctorName, &changed.place))
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, c.want) {
			t.Errorf("%s: it says\n%swant one line with %q", c.name, said, c.want)
		}
		p.front.Policy = policyOf(t)
		p.front.Quotas, p.front.Prices = map[string]float64{"L-DB2E81BA": 8, "L-3819A6DF": 64},
			map[string][]float64{doctorRegion + " g5.xlarge": {1.123, 0.5}}
	}
	p.place.PublicAddress = true // the last route is right then
	if said := problems(p.Check(t.Context(), doctorName, &p.place)); said != "" {
		t.Errorf("with a public address: %s", said)
	}
}

// The policy of the module allows what is needed and not more: each action that is taken out of a statement is named.
func TestPolicyAllowsWhatIsNeeded(t *testing.T) {
	p := prepare(t)
	needs := Needs(doctorName, []string{doctorRegion, "us-east-1"}, &p.place)
	identity := "arn:aws:iam::" + doctorAccount + ":role/aob/aob-" + doctorName
	whole := p.front.Policy
	missing, err := p.simulate(t.Context(), identity, needs)
	if err != nil || len(missing) > 0 {
		t.Fatalf("%v %v", missing, err)
	}
	var document struct{ Statement []map[string]any }
	if err := json.Unmarshal([]byte(whole), &document); err != nil {
		t.Fatal(err)
	}
	for i, s := range document.Statement {
		actions := s["Action"].([]any)
		for k, action := range actions {
			of := slices.DeleteFunc(slices.Clone(needs), func(n Need) bool {
				return !slices.Contains(n.Actions, action.(string))
			})
			if s["Sid"] == "Itself" { // doctor says without them that it cannot ask
				continue
			}
			less := maps.Clone(s)
			less["Action"] = slices.Delete(slices.Clone(actions), k, k+1)
			statements := slices.Clone(document.Statement)
			statements[i] = less
			text, err := json.Marshal(map[string]any{"Statement": statements})
			if err != nil {
				t.Fatal(err)
			}
			p.front.Policy = string(text)
			missing, err := p.simulate(t.Context(), identity, of)
			if err != nil {
				t.Fatal(err)
			}
			if len(missing) == 0 {
				t.Errorf("nothing needs %s of the statement %s", action, s["Sid"])
			}
		}
	}
	p.front.Policy = strings.Replace(whole, `"Statement": [`, `"Statement": [{"Effect": "Deny", "Action": `+
		`"ec2:RunInstances", "Resource": "*"},`, 1)
	if said := problems(p.Check(t.Context(), doctorName, &p.place)); !strings.Contains(said, "permission: "+
		"ec2:RunInstances is not allowed on arn:aws:ec2:eu-west-1:123456789012:instance/*: it is for the start of "+
		"instances; a policy denies it") {
		t.Errorf("with an action that is denied:\n%s", said)
	}
}

// docs/aws.md lists each action that the module's policies allow, and no other.
func TestPageListsEachPermission(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "aws.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Permissions\n")
	section, _, _ = strings.Cut(section, "\n## ")
	action := regexp.MustCompile(`[a-z0-9]+:[A-Z][A-Za-z]+`)
	listed := action.FindAllString(section, -1)
	allowed := map[string]bool{}
	for _, name := range []string{"controller", "boundary"} {
		data, err := os.ReadFile(filepath.Join("..", "terraform", "testdata", "policies", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var policy struct{ Statement []struct{ Action []string } }
		if err := json.Unmarshal(data, &policy); err != nil {
			t.Fatal(err)
		}
		for _, s := range policy.Statement {
			for _, a := range s.Action {
				if allowed[a] = true; !slices.Contains(listed, a) {
					t.Errorf("the page does not list %s, which the policy %s allows", a, name)
				}
			}
		}
	}
	for _, a := range listed {
		if !allowed[a] {
			t.Errorf("the page lists %s, which no policy allows", a)
		}
	}
}
