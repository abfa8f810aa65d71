/* Somebody else's C program: one variable, one step of plain gradient descent, and the result checked. */
#include <basin/basin.h>
#include <stdio.h>

enum { ROWS = 784, COLUMNS = 10, COUNT = ROWS * COLUMNS };

static int Fail(const char* what, const basin_status* status) {
  fprintf(stderr, "%s: code %d: %s\n", what, (int)status->code, status->message);
  return 1;
}

/* Runs one call to its end. */
static int Run(basin_client* client, const basin_item* item, basin_status* status) {
  basin_call* call = NULL;
  int32_t code = basin_start(client, item, 1, &call, status);
  if (code == BASIN_OK) code = basin_call_wait(call, 60.0, status);
  basin_call_free(call);
  return code;
}

int main(void) {
  static float parameters[COUNT], gradient[COUNT];
  basin_status status = {0};
  basin_options options;
  basin_rule rule;
  basin_client* client = NULL;
  basin_model* model = NULL;
  uint32_t id = 0;
  int64_t shape[2] = {ROWS, COLUMNS};
  int i;

  if (basin_abi_version() != BASIN_ABI_VERSION) return 1;
  basin_options_from_environment(&options, sizeof options);
  if (basin_connect(&options, &client, &status) != BASIN_OK) return Fail("connect", &status);

  model = basin_model_new();
  {
    basin_variable variable = {0};
    variable.size = sizeof variable;
    variable.name = "w";
    variable.ndim = 2;
    variable.shape = shape;
    variable.dtype.code = 2;
    variable.dtype.bits = 32;
    variable.dtype.lanes = 1;
    variable.initializer.kind = BASIN_ZEROS;
    if (basin_model_add_variable(model, &variable, &id, &status) != BASIN_OK) return Fail("variable", &status);
  }
  basin_rule_init(&rule, sizeof rule, BASIN_RULE_SGD, 0.5f);
  if (basin_model_set_rule(model, &rule, &status) != BASIN_OK) return Fail("rule", &status);
  if (basin_declare(client, model, &status) != BASIN_OK) return Fail("declare", &status);
  basin_model_free(model);

  for (i = 0; i < COUNT; ++i) gradient[i] = (float)i;
  {
    basin_tensor push = {gradient, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
    basin_tensor pull = {parameters, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
    basin_item item = {id, &push, NULL, &pull};
    if (Run(client, &item, &status) != BASIN_OK) return Fail("push and pull", &status);
  }
  for (i = 0; i < COUNT; ++i) {
    if (parameters[i] != -0.5f * (float)i) {
      fprintf(stderr, "element %d is %g, expected %g\n", i, (double)parameters[i], -0.5 * i);
      return 1;
    }
  }
  if (basin_step(client, NULL, NULL, 0, &status) != BASIN_OK) return Fail("step", &status);
  if (basin_finish(client, NULL, &status) != BASIN_OK) return Fail("finish", &status);
  basin_close(client);
  printf("pushed and pulled from C\n");
  return 0;
}
