// What basin doctor finds of a target of kind kubernetes: kubectl, the cluster, the namespace, the permissions that
// runs need there, JobSet's CRD.
#pragma once

#include <string>
#include <vector>

#include "estimator/job/kubernetes_settings.h"
#include "estimator/launch/doctor.h"

namespace basin {

// Asks the cluster; makes and changes nothing in it. `target`: what findings call it. `image_needed`: a job is named,
// whose pods need one.
std::vector<DoctorFinding> ExamineCluster(const std::string& target, const KubernetesSettings& settings,
                                          bool image_needed);

}  // namespace basin
