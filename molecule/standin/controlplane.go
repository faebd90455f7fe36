package main

// flags renders --name=value pairs, then what the user gave; the last one wins in every component.
func flags(user []string, pairs ...string) (arguments []string) {
	for _, pair := range append(pairs, user...) {
		arguments = append(arguments, "--"+pair)
	}
	return arguments
}

func startEtcd(cfg *config, sup *supervisor) {
	ip, tls := cfg.nodeIP.String(), tlsDir+"/etcd/"
	metrics := "http://127.0.0.1:2381"
	if cfg.flag("etcd-expose-metrics") {
		metrics += ",http://" + ip + ":2381"
	}
	sup.start("etcd", "", flags(cfg.list("etcd-arg"),
		"name="+cfg.nodeName, "data-dir="+etcdDir, "log-level=warn", "logger=zap",
		"listen-client-urls=https://127.0.0.1:2379,https://"+ip+":2379", "advertise-client-urls=https://"+ip+":2379",
		"listen-peer-urls=https://127.0.0.1:2380,https://"+ip+":2380", "initial-advertise-peer-urls=https://"+ip+":2380",
		"initial-cluster="+cfg.nodeName+"=https://"+ip+":2380", "initial-cluster-state=new",
		"listen-metrics-urls="+metrics,
		// k3s' own timing; etcd's default loses its leader on a small busy machine.
		"heartbeat-interval=500", "election-timeout=5000",
		"client-cert-auth=true", "trusted-ca-file="+tls+"server-ca.crt", "cert-file="+tls+"server-client.crt", "key-file="+tls+"server-client.key",
		"peer-client-cert-auth=true", "peer-trusted-ca-file="+tls+"peer-ca.crt", "peer-cert-file="+tls+"peer-server-client.crt", "peer-key-file="+tls+"peer-server-client.key",
	)...)
}

func startAPIServer(cfg *config, sup *supervisor) {
	issuer := "https://kubernetes.default.svc." + cfg.text("cluster-domain")
	sup.start("kube-apiserver", "", flags(cfg.list("kube-apiserver-arg"),
		"advertise-address="+cfg.nodeIP.String(), "bind-address=0.0.0.0", "secure-port=6443", "allow-privileged=true",
		"anonymous-auth=false", "authorization-mode=Node,RBAC", "enable-admission-plugins=NodeRestriction", "profiling=false",
		"api-audiences="+issuer+",k3s", "service-account-issuer="+issuer,
		"service-account-key-file="+tlsDir+"/service.key", "service-account-signing-key-file="+tlsDir+"/service.key",
		"service-cluster-ip-range="+cfg.text("service-cidr"), "service-node-port-range="+cfg.text("service-node-port-range"),
		"token-auth-file="+credDir+"/passwd", "client-ca-file="+tlsDir+"/client-ca.crt",
		"tls-cert-file="+tlsDir+"/serving-kube-apiserver.crt", "tls-private-key-file="+tlsDir+"/serving-kube-apiserver.key",
		"etcd-servers=https://127.0.0.1:2379", "etcd-cafile="+tlsDir+"/etcd/server-ca.crt",
		"etcd-certfile="+tlsDir+"/etcd/client.crt", "etcd-keyfile="+tlsDir+"/etcd/client.key",
		"kubelet-certificate-authority="+tlsDir+"/server-ca.crt",
		"kubelet-client-certificate="+tlsDir+"/client-kube-apiserver.crt", "kubelet-client-key="+tlsDir+"/client-kube-apiserver.key",
		"kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file="+tlsDir+"/client-auth-proxy.crt", "proxy-client-key-file="+tlsDir+"/client-auth-proxy.key",
		"requestheader-client-ca-file="+tlsDir+"/request-header-ca.crt", "requestheader-allowed-names=system:auth-proxy",
		"requestheader-extra-headers-prefix=X-Remote-Extra-", "requestheader-group-headers=X-Remote-Group", "requestheader-username-headers=X-Remote-User",
	)...)
}

// leaderElection is slower than the default: a busy machine must not lose its controllers to a late renewal.
var leaderElection = []string{"leader-elect-lease-duration=40s", "leader-elect-renew-deadline=30s", "leader-elect-retry-period=5s"}

func startControllers(cfg *config, sup *supervisor) {
	signer := func(name, authority string) []string {
		return []string{"cluster-signing-" + name + "-cert-file=" + tlsDir + "/" + authority + ".crt", "cluster-signing-" + name + "-key-file=" + tlsDir + "/" + authority + ".key"}
	}
	controller := append([]string{
		"kubeconfig=" + credDir + "/controller.kubeconfig", "authentication-kubeconfig=" + credDir + "/controller.kubeconfig",
		"authorization-kubeconfig=" + credDir + "/controller.kubeconfig", "bind-address=127.0.0.1", "secure-port=10257", "profiling=false",
		"allocate-node-cidrs=true", "cluster-cidr=" + cfg.text("cluster-cidr"), "service-cluster-ip-range=" + cfg.text("service-cidr"), "configure-cloud-routes=false",
		"controllers=*,tokencleaner", "use-service-account-credentials=true",
		"service-account-private-key-file=" + tlsDir + "/service.key", "root-ca-file=" + tlsDir + "/server-ca.crt",
	}, leaderElection...)
	controller = append(controller, signer("kubelet-serving", "server-ca")...)
	controller = append(controller, signer("kubelet-client", "client-ca")...)
	controller = append(controller, signer("kube-apiserver-client", "client-ca")...)
	controller = append(controller, signer("legacy-unknown", "server-ca")...)
	sup.start("kube-controller-manager", "", flags(cfg.list("kube-controller-manager-arg"), controller...)...)

	sup.start("kube-scheduler", "", flags(cfg.list("kube-scheduler-arg"), append([]string{
		"kubeconfig=" + credDir + "/scheduler.kubeconfig", "authentication-kubeconfig=" + credDir + "/scheduler.kubeconfig",
		"authorization-kubeconfig=" + credDir + "/scheduler.kubeconfig", "bind-address=127.0.0.1", "secure-port=10259", "profiling=false",
	}, leaderElection...)...)...)
}
