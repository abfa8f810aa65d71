/* Somebody else's C program: one variable and one table, a step of plain gradient descent, and the results checked. */
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

/* Two bags of keys; their gradients reach the rows, and the rows come back, alone and pooled. */
static int UseTable(basin_client* client, uint32_t table, basin_status* status) {
  const uint64_t keys[3] = {7, 1ull << 63, 7}, bags[3] = {0, 2, 3}, wrong_bags[3] = {0, 2, 4};
  const float gradients[2][2] = {{1, 2}, {10, 20}};
  /* Key 7 is in both bags; 3 is the initial value, the rate 0.5. */
  const float expected[3][2] = {{-2.5f, -8}, {2.5f, 2}, {-2.5f, -8}};
  float got[3][2] = {{0, 0}, {0, 0}, {0, 0}};
  basin_rows rows = {0};
  basin_call* call = NULL;
  int i;
  rows.size = sizeof rows;
  rows.table = table;
  rows.keys = keys;
  rows.count = 3;
  rows.push = &gradients[0][0];
  rows.bags = wrong_bags;
  rows.bag_count = 2;
  rows.pooling = BASIN_POOL_SUM;
  if (basin_start_rows(client, &rows, 1, &call, status) != BASIN_INVALID_ARGUMENT || call != NULL) {
    fprintf(stderr, "bags that end after the keys were not refused\n");
    return 1;
  }
  rows.bags = bags;
  if (basin_start_rows(client, &rows, 1, &call, status) != BASIN_OK) return Fail("push of bags", status);
  if (basin_call_wait(call, 60.0, status) != BASIN_OK) return Fail("push of bags", status);
  basin_call_free(call);
  rows.push = NULL;
  rows.bags = NULL;
  rows.bag_count = 0;
  rows.pull = &got[0][0];
  if (basin_start_rows(client, &rows, 1, &call, status) != BASIN_OK) return Fail("pull of rows", status);
  if (basin_call_wait(call, 60.0, status) != BASIN_OK) return Fail("pull of rows", status);
  basin_call_free(call);
  for (i = 0; i < 3; ++i) {
    if (got[i][0] != expected[i][0] || got[i][1] != expected[i][1]) {
      fprintf(stderr, "row %d is %g, %g, expected %g, %g\n", i, (double)got[i][0], (double)got[i][1],
              (double)expected[i][0], (double)expected[i][1]);
      return 1;
    }
  }
  return 0;
}

int main(void) {
  static float parameters[COUNT], gradient[COUNT];
  basin_status status = {0};
  basin_options options;
  basin_rule rule;
  basin_client* client = NULL;
  basin_model* model = NULL;
  uint32_t id = 0, table_id = 0;
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
  {
    basin_table table = {0};
    table.size = sizeof table;
    table.name = "rows";
    table.dim = 2;
    table.storage.code = 2;
    table.storage.bits = 32;
    table.storage.lanes = 1;
    table.initializer.kind = BASIN_CONSTANT;
    table.initializer.a = 3;
    if (basin_model_add_table(model, &table, &table_id, &status) != BASIN_OK) return Fail("table", &status);
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
  if (UseTable(client, table_id, &status) != 0) return 1;
  if (basin_step(client, NULL, NULL, 0, &status) != BASIN_OK) return Fail("step", &status);
  if (basin_finish(client, NULL, &status) != BASIN_OK) return Fail("finish", &status);
  basin_close(client);
  printf("pushed and pulled from C\n");
  return 0;
}
