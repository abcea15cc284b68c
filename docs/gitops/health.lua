-- Health of an SLMDeployment for Argo CD, by the conditions that its status tells:
-- Stalled is Degraded, Reconciling is Progressing, a suspended one is Suspended, Ready is Healthy.
local health = { status = "Progressing", message = "the operator hasn't looked at it yet" }

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local found = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  found[condition.type] = condition
end

local function told(status, condition)
  return { status = status, message = condition.reason .. ": " .. (condition.message or "") }
end

if found.Stalled ~= nil and found.Stalled.status == "True" then
  return told("Degraded", found.Stalled)
end
if found.Reconciling ~= nil and found.Reconciling.status == "True" then
  return told("Progressing", found.Reconciling)
end
if found.Ready ~= nil and found.Ready.status == "True" then
  if found.Ready.reason == "Suspended" then
    return told("Suspended", found.Ready)
  end
  return told("Healthy", found.Ready)
end
if found.Ready ~= nil then
  return told("Progressing", found.Ready)
end
return health
