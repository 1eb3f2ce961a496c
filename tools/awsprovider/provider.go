package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// A kind is how resources of a type are kept in AWS.
type kind struct {
	create func(context.Context, *clients, object) (id string, err error)
	read   func(context.Context, *clients, object) (object, error) // nil: it is gone
	update func(context.Context, *clients, object) error           // nil: every change replaces it
	delete func(context.Context, *clients, object) error
}

// kinds has the resource types of schema.json.
var kinds = map[string]kind{
	"aws_ecr_lifecycle_policy":        repositoryPolicy,
	"aws_ecr_repository":              repository,
	"aws_iam_instance_profile":        profile,
	"aws_iam_openid_connect_provider": openID,
	"aws_iam_policy":                  policy,
	"aws_iam_role":                    role,
	"aws_iam_role_policy":             rolePolicy,
	"aws_instance":                    instance,
	"aws_launch_template":             template,
	"aws_scheduler_schedule":          schedule,
	"aws_security_group":              group,

	"aws_s3_bucket":                                      bucket,
	"aws_s3_bucket_lifecycle_configuration":              bucketLifecycle,
	"aws_s3_bucket_ownership_controls":                   bucketOwnership,
	"aws_s3_bucket_policy":                               bucketPolicy,
	"aws_s3_bucket_public_access_block":                  bucketPublicAccess,
	"aws_s3_bucket_server_side_encryption_configuration": bucketEncryption,
	"aws_s3_bucket_versioning":                           bucketVersioning,
}

var (
	instance         = kind{create: runInstance, read: readInstance, delete: terminateInstance}
	template         = kind{create: createTemplate, read: readTemplate, delete: deleteTemplate}
	group            = kind{create: createGroup, read: readGroup, delete: deleteGroup}
	role             = kind{create: createRole, read: readRole, delete: deleteRole}
	policy           = kind{create: createPolicy, read: readPolicy, delete: deletePolicy}
	rolePolicy       = kind{create: createRolePolicy, read: readRolePolicy, delete: deleteRolePolicy}
	profile          = kind{create: createProfile, read: readProfile, delete: deleteProfile}
	openID           = kind{create: createOpenID, read: readOpenID, delete: deleteOpenID}
	schedule         = kind{create: createSchedule, read: readSchedule, delete: deleteSchedule}
	bucket           = kind{create: createBucket, read: readBucket, delete: deleteBucket}
	repository       = kind{create: createRepository, read: readRepository, delete: deleteRepository}
	repositoryPolicy = kind{create: createRepositoryPolicy, read: readRepositoryPolicy, delete: deleteRepositoryPolicy}
)

var sources = map[string]func(context.Context, *clients, object) (object, error){
	"aws_ami": findImage,
}

type provider struct {
	tfprotov5.ProviderServer // what is not implemented here is not called by Terraform for these types
	schemas                  schemas
	resources, dataSources   map[string]*tfprotov5.Schema
	own                      *tfprotov5.Schema
	clients                  *clients
}

func newProvider() (*provider, error) {
	s, err := readSchemas(schemaJSON)
	if err != nil {
		return nil, err
	}
	p := &provider{schemas: s, resources: map[string]*tfprotov5.Schema{}, dataSources: map[string]*tfprotov5.Schema{}}
	if p.own, err = s.Provider.protocol(); err != nil {
		return nil, err
	}
	for name, schema := range s.Resources {
		if p.resources[name], err = schema.protocol(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, schema := range s.DataSources {
		if p.dataSources[name], err = schema.protocol(); err != nil {
			return nil, fmt.Errorf("data %s: %w", name, err)
		}
	}
	return p, nil
}

func failed(err error) []*tfprotov5.Diagnostic {
	if err == nil {
		return nil
	}
	return []*tfprotov5.Diagnostic{{Severity: tfprotov5.DiagnosticSeverityError, Summary: err.Error()}}
}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	out := &tfprotov5.GetMetadataResponse{ServerCapabilities: &tfprotov5.ServerCapabilities{}}
	for _, name := range slices.Sorted(maps.Keys(p.resources)) {
		out.Resources = append(out.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for _, name := range slices.Sorted(maps.Keys(p.dataSources)) {
		out.DataSources = append(out.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return out, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (
	*tfprotov5.GetProviderSchemaResponse, error) {
	return &tfprotov5.GetProviderSchemaResponse{Provider: p.own, ResourceSchemas: p.resources,
		DataSourceSchemas: p.dataSources}, nil
}

func (p *provider) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (
	*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, req *tfprotov5.PrepareProviderConfigRequest) (
	*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: req.Config}, nil
}

func (p *provider) ConfigureProvider(ctx context.Context, req *tfprotov5.ConfigureProviderRequest) (
	*tfprotov5.ConfigureProviderResponse, error) {
	config, err := decode(p.own, req.Config)
	for name, v := range config {
		if name != "region" && v != nil && !reflect.DeepEqual(v, []any{}) {
			err = fmt.Errorf("%s: this provider of tests takes its settings from the environment", name)
		}
	}
	if err == nil {
		p.clients, err = newClients(ctx, text(config, "region"))
	}
	return &tfprotov5.ConfigureProviderResponse{Diagnostics: failed(err)}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (
	*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

// ValidateResourceTypeConfig refuses values of attributes that only the provider sets. Terraform leaves that to it.
func (p *provider) ValidateResourceTypeConfig(_ context.Context, req *tfprotov5.ValidateResourceTypeConfigRequest) (
	*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	config, err := decode(p.resources[req.TypeName], req.Config)
	if err == nil {
		err = p.schemas.Resources[req.TypeName].Block.settable(config)
	}
	return &tfprotov5.ValidateResourceTypeConfigResponse{Diagnostics: failed(err)}, nil
}

func (p *provider) ValidateDataSourceConfig(context.Context, *tfprotov5.ValidateDataSourceConfigRequest) (
	*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (p *provider) UpgradeResourceState(_ context.Context, req *tfprotov5.UpgradeResourceStateRequest) (
	*tfprotov5.UpgradeResourceStateResponse, error) {
	t := p.resources[req.TypeName].ValueType()
	v, err := req.RawState.Unmarshal(t)
	if err != nil {
		return &tfprotov5.UpgradeResourceStateResponse{Diagnostics: failed(err)}, nil
	}
	state, err := tfprotov5.NewDynamicValue(t, v)
	return &tfprotov5.UpgradeResourceStateResponse{UpgradedState: &state, Diagnostics: failed(err)}, nil
}

func (p *provider) ReadResource(ctx context.Context, req *tfprotov5.ReadResourceRequest) (
	*tfprotov5.ReadResourceResponse, error) {
	schema := p.resources[req.TypeName]
	state, err := decode(schema, req.CurrentState)
	var world object
	if err == nil {
		world, err = kinds[req.TypeName].read(ctx, p.clients, state)
	}
	if err != nil {
		return &tfprotov5.ReadResourceResponse{NewState: req.CurrentState, Diagnostics: failed(
			fmt.Errorf("read %s %s: %w", req.TypeName, text(state, "id"), err))}, nil
	}
	var merged object
	if world != nil {
		merged = p.schemas.Resources[req.TypeName].Block.merged(state, world)
	}
	out, err := encode(schema, merged)
	return &tfprotov5.ReadResourceResponse{NewState: out, Private: req.Private, Diagnostics: failed(err)}, nil
}

func (p *provider) PlanResourceChange(_ context.Context, req *tfprotov5.PlanResourceChangeRequest) (
	*tfprotov5.PlanResourceChangeResponse, error) {
	schema := p.resources[req.TypeName]
	fail := func(err error) (*tfprotov5.PlanResourceChangeResponse, error) {
		return &tfprotov5.PlanResourceChangeResponse{Diagnostics: failed(err)}, nil
	}
	prior, err := decode(schema, req.PriorState)
	if err != nil {
		return fail(err)
	}
	next, err := decode(schema, req.ProposedNewState)
	if err != nil {
		return fail(err)
	}
	if next == nil {
		return &tfprotov5.PlanResourceChangeResponse{PlannedState: req.ProposedNewState}, nil
	}
	if _, ok := p.schemas.Resources[req.TypeName].Block.Attributes["tags_all"]; ok {
		next["tags_all"] = next["tags"]
		if next["tags"] == nil {
			next["tags_all"] = object{}
		}
	}
	var replace []*tftypes.AttributePath
	if prior == nil {
		p.schemas.Resources[req.TypeName].Block.planned(next)
	} else if kinds[req.TypeName].update == nil {
		for name := range next {
			if name != "tags_all" && !reflect.DeepEqual(prior[name], next[name]) {
				replace = append(replace, tftypes.NewAttributePath().WithAttributeName(name))
			}
		}
	}
	out, err := encode(schema, next)
	return &tfprotov5.PlanResourceChangeResponse{PlannedState: out, RequiresReplace: replace,
		Diagnostics: failed(err)}, nil
}

func (p *provider) ApplyResourceChange(ctx context.Context, req *tfprotov5.ApplyResourceChangeRequest) (
	*tfprotov5.ApplyResourceChangeResponse, error) {
	schema, kind := p.resources[req.TypeName], kinds[req.TypeName]
	prior, err := decode(schema, req.PriorState)
	if err != nil {
		return nil, err
	}
	next, err := decode(schema, req.PlannedState)
	if err != nil {
		return nil, err
	}
	if next == nil {
		if err := kind.delete(ctx, p.clients, prior); err != nil {
			return &tfprotov5.ApplyResourceChangeResponse{NewState: req.PriorState, Diagnostics: failed(
				fmt.Errorf("delete %s %s: %w", req.TypeName, text(prior, "id"), err))}, nil
		}
		return &tfprotov5.ApplyResourceChangeResponse{NewState: req.PlannedState}, nil
	}
	if prior == nil {
		id, err := kind.create(ctx, p.clients, next)
		if err != nil && id == "" {
			return &tfprotov5.ApplyResourceChangeResponse{NewState: req.PriorState, Diagnostics: failed(
				fmt.Errorf("create %s: %w", req.TypeName, err))}, nil
		}
		next["id"] = id
	} else if err := kind.update(ctx, p.clients, next); err != nil {
		return &tfprotov5.ApplyResourceChangeResponse{NewState: req.PriorState, Diagnostics: failed(
			fmt.Errorf("update %s %s: %w", req.TypeName, text(prior, "id"), err))}, nil
	}
	world, err := kind.read(ctx, p.clients, next)
	if err == nil && world == nil {
		err = fmt.Errorf("it is gone as soon as it was made")
	}
	if err != nil {
		err = fmt.Errorf("create %s %s: %w", req.TypeName, text(next, "id"), err)
	}
	out, encodeErr := encode(schema, p.schemas.Resources[req.TypeName].Block.merged(next, world))
	if encodeErr != nil {
		return nil, encodeErr
	}
	return &tfprotov5.ApplyResourceChangeResponse{NewState: out, Diagnostics: failed(err)}, nil
}

func (p *provider) ReadDataSource(ctx context.Context, req *tfprotov5.ReadDataSourceRequest) (
	*tfprotov5.ReadDataSourceResponse, error) {
	schema := p.dataSources[req.TypeName]
	config, err := decode(schema, req.Config)
	var world object
	if err == nil {
		world, err = sources[req.TypeName](ctx, p.clients, config)
	}
	if err != nil {
		return &tfprotov5.ReadDataSourceResponse{Diagnostics: failed(fmt.Errorf("%s: %w", req.TypeName, err))}, nil
	}
	out, err := encode(schema, p.schemas.DataSources[req.TypeName].Block.merged(config, world))
	return &tfprotov5.ReadDataSourceResponse{State: out, Diagnostics: failed(err)}, nil
}

func decode(schema *tfprotov5.Schema, v *tfprotov5.DynamicValue) (object, error) {
	value, err := v.Unmarshal(schema.ValueType())
	if err != nil {
		return nil, err
	}
	out, err := fromValue(value)
	o, _ := out.(object)
	return o, err
}

func encode(schema *tfprotov5.Schema, o object) (*tfprotov5.DynamicValue, error) {
	t := schema.ValueType()
	value := tftypes.NewValue(t, nil)
	if o != nil {
		var err error
		if value, err = toValue(t, o); err != nil {
			return nil, err
		}
	}
	out, err := tfprotov5.NewDynamicValue(t, value)
	return &out, err
}

func (p *provider) GetFunctions(context.Context, *tfprotov5.GetFunctionsRequest) (
	*tfprotov5.GetFunctionsResponse, error) {
	return &tfprotov5.GetFunctionsResponse{}, nil
}
