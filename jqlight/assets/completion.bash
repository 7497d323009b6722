# Completion of jqlight for bash, and for zsh with bashcompinit. Made by scripts/completion.py.
_jqlight() {
    local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} before=${COMP_WORDS[COMP_CWORD-1]}
    local words="" files="" file settings
    settings="--seed_everything --run_name --run_dir --experiment_name --ckpt_path --config --print_config --help --checkpoint --checkpoint.every_n_steps --checkpoint.every_minutes --optimizer --optimizer.lr --optimizer.weight_decay --lr_scheduler --lr_scheduler.monitor --model.policy.name_or_path --model.policy.dtype --model.policy.lora --model.policy.lora.r --model.policy.lora.alpha --model.policy.lora.target_modules --model.policy.thinking.start --model.policy.thinking.end --model.policy.thinking.separator --model.policy.thinking.template_arguments --model.policy.micro_batch_tokens --model.policy.gradient_checkpointing --model.sampler.engine --model.sampler.max_thinking_tokens --model.sampler.max_answer_tokens --model.sampler.evaluation.temperature --model.sampler.evaluation.top_p --model.sampler.evaluation.top_k --model.sampler.memory_gib --model.sampler.max_num_seqs --model.sampler.dtype --model.sampler.sleep --model.sampler.lookahead --model.baseline --model.pathwise --model.q --model.normalize --model.scale --model.rollouts --model.max_grad_norm --model.on_nonfinite --model.samples --model.num_resamples --model.eps --model.scale_rewards --model.length_normalize --model.kl --model.reward --model.rationale --data.context --data.path --data.scenario --data.train_size --data.validation_size --data.test_size --data.prompts_per_step --data.max_prompt_tokens --data.seed --data.necessity --data.hops --data.answer_format --data.label_noise --trainer.accelerator --trainer.strategy --trainer.devices --trainer.num_nodes --trainer.precision --trainer.logger --trainer.callbacks --trainer.fast_dev_run --trainer.max_epochs --trainer.min_epochs --trainer.max_steps --trainer.min_steps --trainer.max_time --trainer.limit_train_batches --trainer.limit_val_batches --trainer.limit_test_batches --trainer.limit_predict_batches --trainer.overfit_batches --trainer.val_check_interval --trainer.check_val_every_n_epoch --trainer.num_sanity_val_steps --trainer.log_every_n_steps --trainer.enable_checkpointing --trainer.enable_progress_bar --trainer.enable_model_summary --trainer.accumulate_grad_batches --trainer.gradient_clip_val --trainer.gradient_clip_algorithm --trainer.deterministic --trainer.benchmark --trainer.inference_mode --trainer.use_distributed_sampler --trainer.profiler --trainer.detect_anomaly --trainer.barebones --trainer.plugins --trainer.sync_batchnorm --trainer.reload_dataloaders_every_n_epochs --trainer.default_root_dir --trainer.enable_autolog_hparams --trainer.model_registry"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="fit validate test predict sweep compare evaluate samples score prompts export ui sync doctor completion"
    else
        case "$verb $before" in
        evaluate" --model") words="" files=yes ;;
        sweep" --launcher") words="local ray" ;;
        evaluate" --split") words="validation test" ;;
        samples" --split") words="train validation test" ;;
        prompts" --split") words="train validation test" ;;
        *" --model.policy.dtype") words="float32 bfloat16 float16" ;;
        *" --model.policy.micro_batch_tokens") words="auto" ;;
        *" --model.policy.gradient_checkpointing") words="auto true false" ;;
        *" --model.sampler.engine") words="vllm transformers" ;;
        *" --model.sampler.dtype") words="float32 bfloat16 float16" ;;
        *" --model.sampler.sleep") words="true false" ;;
        *" --model.baseline") words="true false" ;;
        *" --model.pathwise") words="true false" ;;
        *" --model.normalize") words="true false" ;;
        *" --model.scale") words="raw batch running" ;;
        *" --model.on_nonfinite") words="stop skip" ;;
        *" --model.scale_rewards") words="true false" ;;
        *" --model.length_normalize") words="true false" ;;
        *" --model.rationale") words="empty gold" ;;
        *" --data.context") words="full gold" ;;
        *" --data.scenario") words="cold warm" ;;
        *" --data.train_size") words="all" ;;
        *" --data.validation_size") words="all" ;;
        *" --data.test_size") words="all" ;;
        *" --data.necessity") words="true false" ;;
        *" --trainer.precision") words="64 32 16 transformer-engine transformer-engine-float16 16-true 16-mixed bf16-true bf16-mixed 32-true 64-true 64 32 16 bf16" ;;
        *" --trainer.logger") words="CSVLogger TensorBoardLogger WandbLogger" ;;
        *" --trainer.fast_dev_run") words="true false" ;;
        *" --trainer.enable_checkpointing") words="true false" ;;
        *" --trainer.enable_progress_bar") words="true false" ;;
        *" --trainer.enable_model_summary") words="true false" ;;
        *" --trainer.deterministic") words="warn true false" ;;
        *" --trainer.benchmark") words="true false" ;;
        *" --trainer.inference_mode") words="true false" ;;
        *" --trainer.use_distributed_sampler") words="true false" ;;
        *" --trainer.detect_anomaly") words="true false" ;;
        *" --trainer.barebones") words="true false" ;;
        *" --trainer.sync_batchnorm") words="true false" ;;
        *" --trainer.enable_autolog_hparams") words="true false" ;;
        *" --model") words="GARL PAFT GRPO MaxRL RFT RLOO SFT" ;;
        *" --data") words="HotpotQA FinQA KHop MuSiQue TwoHop" ;;
        *" --benchmark") words="HotpotQA FinQA KHop MuSiQue TwoHop" ;;
        *" --config") words="finqa finqa_cold hotpotqa hotpotqa_cold khop musique musique_cold quickstart smollm2_hotpotqa" files=yes ;;
        *" --ckpt_path") words="last best" files=yes ;;
        *" --optimizer") words="ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam RAdam RMSprop Rprop SGD SparseAdam" ;;
        *" --lr_scheduler") words="ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR ReduceLROnPlateau SequentialLR StepLR" ;;
        *" --trainer.accelerator") words="auto cpu gpu" ;;
        *) case "$word" in
            -*) case "$verb" in
                fit) words="$settings" ;;
                validate) words="$settings" ;;
                test) words="$settings" ;;
                predict) words="$settings" ;;
                sweep) words="-h --help --dry-run --resume --jobs --name --runs-dir --launcher --devices --ray-address --cpus --gpus $settings" ;;
                compare) words="-h --help --experiment --parent --store --metric --baseline --out" ;;
                evaluate) words="-h --help --config --model --split --out $settings" ;;
                samples) words="-h --help --split --step --wrong --empty --truncated --question --limit --html" ;;
                score) words="-h --help --benchmark -k --out" ;;
                prompts) words="-h --help --config -n --number --split $settings" ;;
                export) words="-h --help --ckpt --out --push-to-hub --adapters" ;;
                ui) words="-h --help --store --host --port --print" ;;
                sync) words="-h --help --store" ;;
                doctor) words="-h --help --start" ;;
                completion) words="-h --help" ;;
                esac ;;
            *) case "$verb" in
                sweep) words="collapse finqa_cold_q khop mixed_depth quickstart_noise quickstart_q quickstart_scale scale_phase smollm2_full smollm2_hotpotqa smollm2_musique table2_cold table3_warm" files=yes ;;
                completion) words="bash zsh" ;;
                *) files=yes ;;
                esac ;;
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r file; do
            COMPREPLY+=("$file")
        done < <(compgen -f -- "$word")
    fi
}
complete -o default -F _jqlight jqlight
