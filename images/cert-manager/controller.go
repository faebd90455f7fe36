package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	config "github.com/cert-manager/cert-manager/internal/apis/config/controller"
	defaults "github.com/cert-manager/cert-manager/internal/apis/config/controller/v1alpha1"
	"github.com/cert-manager/cert-manager/internal/apis/config/controller/validation"
	"github.com/cert-manager/cert-manager/internal/pem"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/configfile"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/server"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/venafi"
)

const leaseName = "cert-manager-controller"

// controllers issues and renews certificates: every controller that upstream enables by default, on the one replica
// that holds the lease. Metrics and health are answered by all.
func controllers(ctx context.Context, path string) error {
	file := configfile.New()
	if err := load(path, file); err != nil {
		return err
	}
	options := file.Config
	if mistakes := validation.ValidateControllerConfiguration(options, nil); len(mistakes) > 0 {
		return mistakes.ToAggregate()
	}
	if err := logf.ValidateAndApply(&options.Logging); err != nil {
		return err
	}
	sizes := options.PEMSizeLimitsConfig
	pem.SetGlobalSizeLimits(pem.NewSizeLimitsFromConfig(
		sizes.MaxCertificateSize, sizes.MaxPrivateKeySize, sizes.MaxChainLength, sizes.MaxBundleSize))

	group, ctx := errgroup.WithContext(ctx)
	factory, err := contextFactory(ctx, options)
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	if err := serveMetrics(ctx, group, options, shared); err != nil {
		return err
	}
	leading, err := lead(ctx, group, options, factory)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return group.Wait()
	case <-leading:
	}
	if err := startControllers(ctx, group, options, factory); err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return group.Wait()
}

func startControllers(
	ctx context.Context, group *errgroup.Group, options *config.ControllerConfiguration, factory *controller.ContextFactory,
) error {
	for name, construct := range controller.Known() {
		if !slices.Contains(defaults.DefaultEnabledControllers, name) {
			continue
		}
		one, err := construct(factory)
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
		group.Go(func() error { return one.Run(options.NumberOfConcurrentWorkers, ctx) })
	}
	return nil
}

func serveMetrics(
	ctx context.Context, group *errgroup.Group, options *config.ControllerConfiguration, shared *controller.Context,
) error {
	listener, err := server.Listen(ctx, "tcp", options.MetricsListenAddress)
	if err != nil {
		return fmt.Errorf("metricsListenAddress %s: %w", options.MetricsListenAddress, err)
	}
	acme, certificates := shared.SharedInformerFactory.Acme().V1(), shared.SharedInformerFactory.Certmanager().V1()
	shared.Metrics.SetupACMECollector(acme.Challenges().Lister())
	shared.Metrics.SetupCertificateCollector(certificates.Certificates().Lister())
	shared.Metrics.SetupIssuerCollector(certificates.Issuers().Lister())
	shared.Metrics.SetupClusterIssuerCollector(certificates.ClusterIssuers().Lister())
	metrics := shared.Metrics.NewServer(listener)
	group.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return metrics.Shutdown(ending)
	})
	group.Go(func() error {
		if err := metrics.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// lead gives a channel that is closed when this replica may work. Losing the lease ends the program.
func lead(
	ctx context.Context, group *errgroup.Group, options *config.ControllerConfiguration, factory *controller.ContextFactory,
) (<-chan struct{}, error) {
	health := healthz.NewServer(options.LeaderElectionConfig.HealthzTimeout)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", options.HealthzListenAddress)
	if err != nil {
		return nil, fmt.Errorf("healthzListenAddress %s: %w", options.HealthzListenAddress, err)
	}
	group.Go(func() error { return health.Start(ctx, listener) })

	own, err := factory.Build("leader-election")
	if err != nil {
		return nil, err
	}
	identity, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	election := options.LeaderElectionConfig
	lock, err := resourcelock.NewWithLabels(
		resourcelock.LeasesResourceLock, election.Namespace, leaseName, own.Client.CoreV1(), own.Client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: identity, EventRecorder: own.Recorder},
		map[string]string{"app.kubernetes.io/managed-by": "cert-manager"},
	)
	if err != nil {
		return nil, err
	}
	leading, lost := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   election.LeaseDuration,
		RenewDeadline:   election.RenewDeadline,
		RetryPeriod:     election.RetryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        health.LeaderHealthzAdaptor,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(leading) },
			OnStoppedLeading: func() { close(lost) },
		},
	})
	if err != nil {
		return nil, err
	}
	group.Go(func() error {
		elector.Run(ctx)
		<-lost
		if ctx.Err() != nil {
			return nil
		}
		return errors.New("the lease is lost")
	})
	return leading, nil
}

func contextFactory(ctx context.Context, options *config.ControllerConfiguration) (*controller.ContextFactory, error) {
	solver := options.ACMEHTTP01Config
	acme := controller.ACMEOptions{
		ACMEHTTP01SolverRunAsNonRoot: solver.SolverRunAsNonRoot,
		HTTP01SolverImage:            solver.SolverImage,
		HTTP01SolverNameservers:      solver.SolverNameservers,
		DNS01Nameservers:             options.ACMEDNS01Config.RecursiveNameservers,
		DNS01CheckRetryPeriod:        options.ACMEDNS01Config.CheckRetryPeriod,
		DNS01CheckAuthoritative:      !options.ACMEDNS01Config.RecursiveNameserversOnly,
	}
	for text, quantity := range map[*string]*resource.Quantity{
		&solver.SolverResourceRequestCPU:    &acme.HTTP01SolverResourceRequestCPU,
		&solver.SolverResourceRequestMemory: &acme.HTTP01SolverResourceRequestMemory,
		&solver.SolverResourceLimitsCPU:     &acme.HTTP01SolverResourceLimitsCPU,
		&solver.SolverResourceLimitsMemory:  &acme.HTTP01SolverResourceLimitsMemory,
	} {
		parsed, err := resource.ParseQuantity(*text)
		if err != nil {
			return nil, fmt.Errorf("acmeHTTP01Config: resource %q: %w", *text, err)
		}
		*quantity = parsed
	}
	shim := options.IngressShimConfig
	return controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         options.KubeConfig,
		KubernetesAPIQPS:   options.KubernetesAPIQPS,
		KubernetesAPIBurst: options.KubernetesAPIBurst,
		APIServerHost:      options.APIServerHost,
		Namespace:          options.Namespace,
		ACMEOptions:        acme,
		SchedulerOptions:   controller.SchedulerOptions{MaxConcurrentChallenges: options.MaxConcurrentChallenges},
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: options.ClusterResourceNamespace},
		IngressShimOptions: controller.IngressShimOptions{
			DefaultIssuerName:                 shim.DefaultIssuerName,
			DefaultIssuerKind:                 shim.DefaultIssuerKind,
			DefaultIssuerGroup:                shim.DefaultIssuerGroup,
			DefaultAutoCertificateAnnotations: shim.DefaultAutoCertificateAnnotations,
			ExtraCertificateAnnotations:       shim.ExtraCertificateAnnotations,
		},
		CertificateOptions: controller.CertificateOptions{
			EnableOwnerRef:                           options.EnableCertificateOwnerRef,
			CopiedAnnotationPrefixes:                 options.CopiedAnnotationPrefixes,
			CertificateRequestMinimumBackoffDuration: options.CertificateRequestMinimumBackoffDuration,
		},
	})
}
