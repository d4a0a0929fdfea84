"""The tests that take more than about a second of one core each; `make test-fast` leaves them out."""

SLOW: dict[str, tuple[str, ...]] = {
    "test_bad_input_runs.py": ("test_ctrl_c_saves_and_says_how_to_go_on",),
    "test_batch_norm.py": ("test_a_run_with_a_teacher_that_learns",),
    "test_benchmarks.py": (
        "test_a_part_of_the_gpu_script_that_hangs_or_fails_does_not_end_the_others",
        "test_a_profile_sorts_all_of_a_steps_time",
        "test_activations_without_a_pass_are_those_of_one",
        "test_bf16_accuracy_trains_and_scores",
        "test_memory_and_linear",
        "test_reading_and_pictures",
        "test_steps",
        "test_the_gpu_script_runs_on_a_cpu",
        "test_the_reference_step_computes_the_same",
    ),
    "test_bombs.py": ("test_folders_that_all_lead_to_one_another",),
    "test_cli_export.py": (
        "test_a_segmenter_goes_in_and_out_unchanged",
        "test_what_they_would_run_otherwise_is_refused",
    ),
    "test_cli_output.py": (
        "test_an_image_list_says_what_is_scored",
        "test_official_sets_the_published_views",
        "test_scores_as_csv_and_on_standard_output",
    ),
    "test_docs.py": (
        "test_every_shipped_recipe_plans_its_stages",
        "test_runnable_blocks_run",
    ),
    "test_engine_ranks.py": (
        "test_a_rank_that_fails_ends_the_other_which_says_why",
        "test_a_rank_without_the_others_is_told",
        "test_other_data_is_named_too",
        "test_ranks_that_mean_something_else_are_named",
        "test_ranks_that_share_no_folder_cannot_share_images",
        "test_two_ranks_of_which_one_sees_the_folder_equal_one_process",
    ),
    "test_engine_resume.py": (
        "test_a_broken_validation_image_costs_no_steps",
        "test_a_killed_training_resumes_exactly",
        "test_a_stopped_training_resumes_exactly",
    ),
    "test_engine_runtime.py": ("test_a_compiled_network_learns_the_same",),
    "test_evaluation_report.py": (
        "test_a_run_at_work_says_so_and_its_page_loads_itself_until_it_is_at_its_end",
        "test_images_without_labels_are_shown",
    ),
    "test_evaluation_report_stages.py": (
        "test_files_that_cannot_be_read_or_are_still_to_come",
        "test_without_the_data_the_contact_sheets_are_shown",
    ),
    "test_example_programs.py": ("test_the_notebook_runs_from_its_first_cell_to_its_last",),
    "test_examples.py": ("test_a_run_of_ones_own",),
    "test_export_hub.py": ("test_a_revision_pins_a_model",),
    "test_export_onnx.py": (
        "test_any_batch_of_any_size",
        "test_every_network_takes_a_batch_of_any_size",
        "test_fewer_bits",
        "test_scores_and_latency_beside_pytorch",
        "test_the_example_needs_three_packages",
        "test_the_file_says_what_it_is",
        "test_the_pixel_format_and_the_corner_rule_are_in_the_graph",
        "test_what_differs_from_pytorch_is_not_written",
    ),
    "test_fuzz.py": ("test_whatever_is_read_is_taken_or_refused_in_words",),
    "test_inference_fast.py": (
        "test_a_network_made_for_inference_says_the_same",
        "test_the_fast_predictor_says_what_the_plain_one_does",
    ),
    "test_inference_model.py": ("test_evaluate_a_run",),
    "test_methods_ahead.py": (
        "test_ahead_of_the_device_the_same_is_computed",
        "test_no_step_waits_for_the_device_and_each_is_the_same_program",
        "test_replayed_steps_are_the_steps",
    ),
    "test_methods_matrix.py": (
        "test_compiled",
        "test_two_ranks",
    ),
    "test_methods_recorded.py": (
        "test_six_steps_in_float64_are_the_recorded_ones",
        "test_three_steps_on_this_cpu_are_the_recorded_ones",
    ),
    "test_methods_tgstn.py": ("test_three_steps_equal_the_hand_written_ones",),
    "test_methods_uda_recorded.py": (
        "test_features_equal_to_the_frozen_ones_have_distance_0_and_no_gradient",
        "test_four_steps_are_the_recorded_ones",
    ),
    "test_models_checkpointing.py": ("test_nothing_changes",),
    "test_models_hrda.py": ("test_compiled_it_computes_the_same_whatever_the_crops",),
    "test_models_networks.py": ("test_outputs_are_what_the_contract_says",),
    "test_models_pretrained.py": ("test_published_seanet_goes_in_and_out_unchanged",),
    "test_models_pretrained_resnet.py": (
        "test_a_published_checkpoint_goes_in_runs_and_comes_out_unchanged",
        "test_own_models_keep_stride_pixels_and_corner_rule",
    ),
    "test_models_saved.py": ("test_a_published_checkpoint_runs_as_its_program_ran_it",),
    "test_pipeline_chosen.py": (
        "test_a_domain_that_is_not_read_need_not_be_given",
        "test_weights_that_cannot_be_had_are_told_at_once",
    ),
    "test_pipeline_continue.py": (
        "test_a_continued_training_that_is_stopped_resumes",
        "test_a_finished_stage_is_made_longer_as_if_it_had_not_ended",
    ),
    "test_pipeline_domains.py": (
        "test_a_few_labelled_target_images_are_learned_from_and_it_is_said_everywhere",
        "test_several_sources_and_targets_go_through_a_whole_chain",
    ),
    "test_pipeline_kill.py": ("test_a_pipeline_that_is_killed_ends_as_if_it_had_not_been",),
    "test_pipeline_plan.py": (
        "test_a_dry_run_shows_what_would_be_done_and_writes_nothing",
        "test_a_link_to_elsewhere_and_a_folder_that_is_no_run_are_left_alone",
        "test_fresh_wants_yes_and_deletes_what_stages_make_alone",
        "test_stages_one_by_one_make_the_same_run",
    ),
    "test_pipeline_pseudo_labels.py": (
        "test_a_flat_stage_feeds_self_training",
        "test_a_killed_stage_resumes_exactly",
    ),
    "test_pipeline_run.py": ("test_a_changed_setting_is_refused_by_name_and_redone_when_asked",),
    "test_pipeline_stylize.py": (
        "test_a_killed_stage_resumes_exactly",
        "test_the_recorded_style_transfer",
        "test_two_ranks_write_what_one_writes",
    ),
    "test_pipeline_synthia.py": ("test_sixteen_classes_in_every_stage",),
    "test_plugins.py": ("test_a_process_of_its_own_loads_them_before_what_needs_them",),
    "test_processes.py": (
        "test_a_pool_leaves_signals_to_its_parent_and_ends_with_it",
        "test_sigterm_to_the_whole_group_costs_no_step",
    ),
    "test_python_adapt.py": (
        "test_data_sets_in_memory",
        "test_the_same_call_loads_what_is_there",
        "test_two_folders",
    ),
    "test_sample_randomness.py": ("test_compiled_code_draws_the_same_and_is_compiled_once",),
    "test_setup_doctor.py": ("test_a_recipe_is_examined",),
    "test_setup_init.py": ("test_the_commands_that_it_names_work",),
    "test_stages.py": ("test_a_trained_model_is_scored_as_from_its_file",),
}
"""Test file -> names of its slow tests, with all their parameters. A test that takes this long belongs here."""
